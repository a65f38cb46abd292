//! The DaemonSet on a real Kubernetes: tests apply the manifests, and the API server names pods.

use std::fs;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::cluster::{ApiServer, Kubectl, Manifest, TracerPod, Worker, programs};
use harness::prometheus::Prometheus;
use harness::{
    Container, Event, FakeServer, Manner, Namespace, Need, Program, Report, Running, Suite, Test,
    User, eventually, test,
};
use serde_json::{Value, json};

use super::way::{WAYS, Way};
use super::{
    LOOPBACK, add_address, check_metrics, check_names, check_pod, check_stacks, leak, leaking, pod,
};

/// The namespace of the leaking pod and of the tracer.
const NAMESPACE: &str = "--namespace=shop";
const TRACERS: &str = "--namespace=pgsocktrace";
/// Time limit of `kubectl wait` and `kubectl rollout`.
const TIMEOUT: &str = "--timeout=100s";
/// A free address of the service network, for a service; and an address that belongs to nothing.
const SERVICE: &str = "10.96.7.7";
const NOBODY: &str = "10.244.1.10";
/// The user that the leaking program runs as.
const USER: u32 = 1000;

/// No tests unless Kubernetes was built, which takes so long that it is optional.
pub(crate) fn tests() -> Vec<Test> {
    if programs().is_err() {
        return Vec::new();
    }
    vec![test("real_api_server", api_server), test("real_kubelet", kubelet).needs(Need::Prometheus)]
}

/// The tracer's service account has exactly the necessary permissions. With its token, the tracer
/// learns the pod's name from a real API server.
fn api_server(suite: &Suite) -> Result<()> {
    let (tracer_network, ()) = Namespace::create(|| Ok(()))?;
    let (pod_network, server) = Namespace::create(|| {
        [SERVICE, NOBODY].iter().try_for_each(|address| add_address(address))?;
        FakeServer::start_at(Ipv4Addr::UNSPECIFIED, Manner::Postgres)
    })?;
    let api = ApiServer::start(suite, &tracer_network)?;
    let kubectl = api.kubectl();
    kubectl.apply(&Manifest::base())?;
    check_permissions(&kubectl)?;
    let token = kubectl.says(&[TRACERS, "create", "token", "pgsocktrace"])?;
    fs::write(api.access().service_account.join("token"), token.trim())?;
    prepare_namespace(&kubectl)?;
    // No controller runs here to create the account.
    kubectl.says(&[NAMESPACE, "create", "serviceaccount", "default"])?;
    let created = kubectl.create(&pod(None).as_new_object())?;
    let uid = created["metadata"]["uid"].as_str().context("uid")?;

    let manifest = Manifest::read()?;
    let options = suite.trace_port(server.port()).option("--pod-label", "app").flag("-v");
    let tracer = TracerPod::start(suite, &manifest, &tracer_network, api.access(), options)?;
    tracer.says("the API server names the pods of this node: 1")?;
    let cgroup = format!("/kubepods/burstable/pod{uid}");
    let binary = suite.static_client_path()?;
    let mut program = Container::start_below(suite, &binary, &pod_network, User::Owner, &cgroup)?;
    let status = pod(Some(program.id())).as_status().to_string();
    let patch = ["patch", "pod", pod(None).name, "--subresource=status", "--type=merge", "-p"];
    kubectl.says(&[&[NAMESPACE], &patch[..], &[&status]].concat())?;
    leak(server.port(), &tracer, &mut program)?;
    check_metrics(&tracer_network, LOOPBACK, &manifest)?;
    kubectl.create(&json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "shop", "name": "postgres"},
        "spec": {"clusterIP": SERVICE, "ports": [{"port": 5432}]}}))?;
    for address in [NOBODY, SERVICE] {
        program.ok(&format!("connect {address} {}", server.port()))?;
        program.ok("startup")?;
    }
    tracer.says(&format!("{SERVICE} is service shop/postgres"))?;
    let refused =
        tracer.log().into_iter().find(|line| line.contains("names of servers' addresses"));
    ensure!(refused.is_none(), "{refused:?}");
    let report = tracer.stop()?;
    check_stacks(&report)?;
    check_pod(&report, &program, uid)?;
    program.delete()
}

/// Covers everything from `kubectl apply -k` to an alert with the name of the leaking pod, and the
/// report in the tracer's log: with the base, and with the components that change the tracer's
/// sources or permissions.
fn kubelet(suite: &Suite) -> Result<()> {
    let (network, ()) = Namespace::create(|| Ok(()))?;
    let mut api = ApiServer::start(suite, &network)?;
    api.start_controllers()?;
    let kubectl = api.kubectl();
    let worker = Worker::start(suite, &api)?;
    let node = Node { suite, kubectl: &kubectl, network: &network, worker: &worker };
    node.trace().with_context(|| worker.complaints())
}

/// A node of a real cluster.
struct Node<'a> {
    suite: &'a Suite,
    kubectl: &'a Kubectl<'a>,
    network: &'a Namespace,
    worker: &'a Worker<'a>,
}

impl Node<'_> {
    fn trace(&self) -> Result<()> {
        let shop = self.start_shop()?;
        let server = Namespace::of(shop.pid)?.run(|| FakeServer::start(Manner::Postgres))?;
        let name = pod(None).name;
        let attach = [NAMESPACE, "attach", "--stdin", "--quiet", "--container=app", name];
        let mut program = Program::start(&mut self.kubectl.command(&attach)?)?;
        for way in WAYS {
            self.kubectl.apply(&way.overlay(self.suite, server.port())?)?;
            let log = self.find_leak(&way, server.port(), &mut program);
            let log = log.with_context(|| format!("component {:?}", way.component))?;

            self.kubectl.says(&[TRACERS, "delete", "daemonset", "pgsocktrace"])?;
            let said = log.stdout.to_end()?;
            let report = |line: &str| Report::read(&serde_json::from_str(line).ok()?).ok();
            let last = said.lines().filter_map(report).next_back();
            let report = last.with_context(|| format!("no report: {said}"))?;
            check_stacks(&report)?;
            check_names(&report, shop.pid, &shop.container, &shop.uid)?;
        }
        Ok(())
    }

    /// Lets the program leak until the tracer's log, its metrics and an alert report the leak.
    fn find_leak(&self, way: &Way, port: u16, program: &mut Program) -> Result<Running> {
        self.kubectl.says(&[TRACERS, "rollout", "status", "daemonset/pgsocktrace", TIMEOUT])?;
        let pods = self.kubectl.object(&[TRACERS, "pods"])?["items"].take();
        // A terminating pod of an earlier deployment may still be listed.
        let stays = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
        let tracer = pods.as_array().context("pods")?.iter().find(stays).context("no pod")?;
        let name = tracer["metadata"]["name"].as_str().context("name")?;
        let log = Running::start(&mut self.kubectl.command(&[TRACERS, "logs", "-f", name])?)?;
        let seen = |wanted: &dyn Fn(&str) -> bool| {
            let deadline = Instant::now() + Duration::from_millis(250);
            log.stdout.find_from(0, deadline, |line| wanted(line).then_some(())).is_some()
        };
        let named = format!("the {} names the pods of this node", way.names);
        let is_leak = |line: &str| {
            let finding = Event::read(line).and_then(|event| event.finding());
            finding.is_some_and(|finding| finding.is_leak())
        };
        let mut leak = leaking(port, program);
        eventually("the leak is found", || {
            leak()?;
            Ok(seen(&|line| line.contains(&named)) && seen(&is_leak))
        })
        .with_context(|| {
            let mut said = log.stdout.all();
            said.retain(|line| Event::read(line).is_none());
            said.join("\n")
        })?;

        check_confinement(self.worker.pid(&id_of(tracer, "pgsocktrace")?)?, way.capabilities)?;
        let host = tracer["status"]["podIP"].as_str().context("podIP")?;
        let manifest = Manifest::read()?;
        check_metrics(self.network, host, &manifest)?;
        let target = format!("{host}:{}", manifest.metrics_port()?);
        check_alert(self.suite, self.network, &target)?;
        Ok(log)
    }

    /// Creates the leaking pod and waits until it runs.
    fn start_shop(&self) -> Result<Shop> {
        const IMAGE: &str = "localhost/shop:1";
        let kubectl = self.kubectl;
        self.worker.import_program(IMAGE, &self.suite.static_client_path()?, USER)?;
        prepare_namespace(kubectl)?;
        eventually("the namespace has its service account", || {
            Ok(kubectl.object(&[NAMESPACE, "serviceaccount", "default"]).is_ok())
        })?;
        let mut object = pod(None).as_new_object();
        // The scheduler assigns this pod to the node.
        object["spec"]["nodeName"].take();
        for container in object["spec"]["containers"].as_array_mut().context("containers")? {
            container["image"] = IMAGE.into();
            container["stdin"] = true.into();
        }
        kubectl.create(&object)?;
        let name = format!("pod/{}", pod(None).name);
        kubectl.says(&[NAMESPACE, "wait", "--for=condition=Ready", TIMEOUT, &name])?;
        let object = kubectl.object(&[NAMESPACE, &name])?;
        let container = id_of(&object, "app")?;
        let uid = object["metadata"]["uid"].as_str().context("uid")?.to_owned();
        Ok(Shop { pid: self.worker.pid(&container)?, container, uid })
    }
}

/// The leaking pod.
struct Shop {
    pid: u32,
    container: String,
    uid: String,
}

/// The tracer has exactly what the manifest requests: these capabilities, the runtime's seccomp
/// filter, and no way to gain privileges.
fn check_confinement(tracer: u32, capabilities: &[u32]) -> Result<()> {
    let status = fs::read_to_string(format!("/proc/{tracer}/status"))?;
    let capabilities: u64 = capabilities.iter().map(|number| 1 << number).sum();
    let capabilities = format!("{capabilities:016x}");
    let expected = [
        ("CapEff", &*capabilities),
        ("CapBnd", &*capabilities),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ];
    for (name, value) in expected {
        ensure!(status.lines().any(|line| line == format!("{name}:\t{value}")), "{status}");
    }
    Ok(())
}

/// Prometheus scrapes the tracer's pod in the cluster's network, and an alert names the leaking
/// pod.
fn check_alert(suite: &Suite, network: &Namespace, target: &str) -> Result<()> {
    let target = target.parse()?;
    network.run(|| {
        let prometheus = Prometheus::start(&suite.directory()?, target)?;
        let labels = [("namespace", "shop"), ("pod", pod(None).name), ("container", "app")];
        eventually("an alert names the pod", || {
            let firing = prometheus.firing()?;
            Ok(firing.iter().any(|alert| labels.iter().all(|(key, value)| alert[key] == *value)))
        })
    })
}

fn id_of(pod: &Value, container: &str) -> Result<String> {
    let statuses = pod["status"]["containerStatuses"].as_array().context("containerStatuses")?;
    let status = statuses.iter().find(|status| status["name"] == container).context("container")?;
    let id = status["containerID"].as_str().context("containerID")?;
    Ok(id.strip_prefix("containerd://").context("containerd")?.to_owned())
}

fn prepare_namespace(kubectl: &Kubectl<'_>) -> Result<()> {
    kubectl.says(&["create", "namespace", "shop"]).map(drop)
}

fn check_permissions(kubectl: &Kubectl<'_>) -> Result<()> {
    const ACCOUNT: &str = "pgsocktrace:pgsocktrace";
    for (verb, what) in
        [("list", "pods"), ("watch", "pods"), ("list", "services"), ("watch", "services")]
    {
        ensure!(kubectl.allows(ACCOUNT, &[verb, what])?, "not allowed to {verb} {what}");
    }
    let forbidden: [&[&str]; 6] = [
        &["get", "pods"],
        &["delete", "pods"],
        &["create", "pods", "--subresource=exec"],
        &["get", "nodes", "--subresource=proxy"],
        &["list", "secrets"],
        &["create", "serviceaccounts", "--subresource=token"],
    ];
    for what in forbidden {
        ensure!(!kubectl.allows(ACCOUNT, what)?, "allowed to {what:?}");
    }
    Ok(())
}
