//! The same on a real Kubernetes: what users apply is applied, and names come from its API server.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::{ApiServer, Kubectl, Manifest, TracerPod, Worker, programs};
use tests::prometheus::Prometheus;
use tests::{
    Container, Event, FakeServer, Manner, Namespace, Need, Program, Report, Running, Suite, Test,
    User, eventually, test,
};

use super::{LOOPBACK, check_metrics, check_names, check_pod, check_stacks, leak, leaking, pod};

/// Where the leaking pod and the tracer live.
const NAMESPACE: &str = "--namespace=shop";
const TRACERS: &str = "--namespace=pgsocktrace";
/// How long `kubectl` waits for what it is told to wait for.
const TIMEOUT: &str = "--timeout=100s";
/// The user that the leaking program runs as.
const USER: u32 = 1000;

/// None unless Kubernetes was built, which takes so long that it must be asked for.
pub(crate) fn tests() -> Vec<Test> {
    if programs().is_err() {
        return Vec::new();
    }
    vec![test("real_api_server", api_server), test("real_kubelet", kubelet).needs(Need::Prometheus)]
}

/// The tracer's service account may do what the tracer does and no more, and with its token the tracer
/// learns the pod's name from the server that the pod was created on.
fn api_server(suite: &Suite) -> Result<()> {
    let (tracer_network, ()) = Namespace::create(|| Ok(()))?;
    let (pod_network, server) = Namespace::create(|| FakeServer::start(Manner::Postgres))?;
    let api = ApiServer::start(suite, &tracer_network)?;
    let kubectl = api.kubectl();
    kubectl.apply(&Manifest::base())?;
    check_permissions(&kubectl)?;
    let token = kubectl.says(&[TRACERS, "create", "token", "pgsocktrace"])?;
    fs::write(api.access().service_account.join("token"), token.trim())?;
    prepare_namespace(&kubectl)?;
    // What a controller does where one runs.
    kubectl.says(&[NAMESPACE, "create", "serviceaccount", "default"])?;
    let created = kubectl.create(&pod(None).as_new_object())?;
    let uid = created["metadata"]["uid"].as_str().context("uid")?;

    let manifest = Manifest::read()?;
    let options = suite.trace_port(server.port()).option("--pod-label", "app");
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
    let report = tracer.stop()?;
    check_stacks(&report)?;
    check_pod(&report, &program, uid)?;
    program.delete()
}

/// From `kubectl apply -k` to the name of the pod that leaks, and to the report that `kubectl delete -k`
/// leaves in the log.
fn kubelet(suite: &Suite) -> Result<()> {
    let (network, ()) = Namespace::create(|| Ok(()))?;
    let mut api = ApiServer::start(suite, &network)?;
    api.start_controllers()?;
    let kubectl = api.kubectl();
    let worker = Worker::start(suite, &api)?;
    on_node(suite, &kubectl, &network, &worker).with_context(|| worker.complaints())
}

fn on_node(
    suite: &Suite,
    kubectl: &Kubectl<'_>,
    network: &Namespace,
    worker: &Worker<'_>,
) -> Result<()> {
    let shop = Shop::start(suite, kubectl, worker)?;
    let server = Namespace::of(shop.pid)?.run(|| FakeServer::start(Manner::Postgres))?;
    let mut program = Program::start(&mut kubectl.command(&[
        NAMESPACE,
        "attach",
        "--stdin",
        "--quiet",
        "--container=app",
        pod(None).name,
    ])?)?;

    let overlay = overlay(&suite.directory()?, server.port())?;
    kubectl.apply(&overlay)?;
    kubectl.says(&[TRACERS, "rollout", "status", "daemonset/pgsocktrace", TIMEOUT])?;
    let log = Running::start(&mut kubectl.command(&[
        TRACERS,
        "logs",
        "--follow",
        "daemonset/pgsocktrace",
    ])?)?;
    let mut leak = leaking(server.port(), &mut program);
    eventually("the leak is found", || {
        leak()?;
        let is_leak = |line: &str| {
            Event::read(line).filter(|event| event.finding().is_some_and(|one| one.is_leak()))
        };
        let deadline = Instant::now() + Duration::from_millis(250);
        Ok(log.stdout.find_from(0, deadline, is_leak).is_some())
    })
    .with_context(|| log.stdout.all().join("\n"))?;
    let tracer = kubectl.object(&[TRACERS, "pods"])?["items"][0].take();
    check_confinement(worker.pid(&id_of(&tracer, "pgsocktrace")?)?)?;
    let (host, manifest) =
        (tracer["status"]["podIP"].as_str().context("podIP")?, Manifest::read()?);
    check_metrics(network, host, &manifest)?;
    check_alert(suite, network, &format!("{host}:{}", manifest.metrics_port()?))?;

    // The cluster takes its time to forget a namespace; the tracer ends at once.
    kubectl.says(&["delete", "--wait=false", "-k", &overlay.to_string_lossy()])?;
    let said = log.stdout.to_end()?;
    let mut reports =
        said.lines().filter_map(|line| Report::read(&serde_json::from_str(line).ok()?).ok());
    let report = reports.next_back().with_context(|| format!("no report: {said}"))?;
    check_stacks(&report)?;
    check_names(&report, shop.pid, &shop.container, &shop.uid)
}

/// The pod that leaks.
struct Shop {
    pid: u32,
    container: String,
    uid: String,
}

impl Shop {
    /// Creates it and waits until it runs.
    fn start(suite: &Suite, kubectl: &Kubectl<'_>, worker: &Worker<'_>) -> Result<Self> {
        const IMAGE: &str = "localhost/shop:1";
        worker.import_program(IMAGE, &suite.static_client_path()?, USER)?;
        prepare_namespace(kubectl)?;
        eventually("the namespace has its service account", || {
            Ok(kubectl.object(&[NAMESPACE, "serviceaccount", "default"]).is_ok())
        })?;
        let mut object = pod(None).as_new_object();
        // This one is for the scheduler.
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
        Ok(Self { pid: worker.pid(&container)?, container, uid })
    }
}

/// What the manifest asks for is what the tracer has got: three capabilities, the runtime's filter of
/// system calls, and no way to more.
fn check_confinement(tracer: u32) -> Result<()> {
    let status = fs::read_to_string(format!("/proc/{tracer}/status"))?;
    // CAP_SYS_ADMIN, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, by capabilities(7).
    let capabilities = format!("{:016x}", (1 << 21) | (1 << 19) | (1 << 2));
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

/// A real Prometheus in the cluster's network scrapes the tracer's pod, and an alert names the one that leaks.
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

/// An overlay as users make it, for this port of a server, and for a test that does not want to wait.
fn overlay(directory: &Path, port: u16) -> Result<PathBuf> {
    // A base must be named by a relative path.
    let up = "../".repeat(directory.components().count() - 1);
    let base = Manifest::base();
    let base = base.strip_prefix("/").context("the base has no place")?;
    let kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "pgsocktrace",
        "resources": [format!("{up}{}", base.display())],
        "images": [{"name": "pgsocktrace", "newName": "localhost/pgsocktrace"}],
        "configMapGenerator": [{"name": "pgsocktrace", "behavior": "merge", "literals": [
            format!("PGSOCKTRACE_PORT={port}"),
            "PGSOCKTRACE_INTERVAL=500ms",
            "PGSOCKTRACE_SILENT_AFTER=2s",
            "PGSOCKTRACE_POD_LABEL=app",
            "PGSOCKTRACE_OUTPUT=ndjson",
        ]}],
    });
    fs::write(directory.join("kustomization.yaml"), kustomization.to_string())?;
    Ok(directory.to_owned())
}

fn check_permissions(kubectl: &Kubectl<'_>) -> Result<()> {
    const ACCOUNT: &str = "pgsocktrace:pgsocktrace";
    for verb in ["list", "watch"] {
        ensure!(kubectl.allows(ACCOUNT, &[verb, "pods"])?, "it may not {verb} pods");
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
        ensure!(!kubectl.allows(ACCOUNT, what)?, "it may {what:?}");
    }
    Ok(())
}
