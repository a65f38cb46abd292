//! Runs the tracer's image as its DaemonSet does, with exactly the manifest's capabilities: it
//! names the code and the pod of leaks in other containers.

mod capabilities;
mod real;
mod way;

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::cluster::{Manifest, PodOnNode, StandIn, TracerPod, get};
use harness::{
    Container, Destination, FakeServer, Manner, Namespace, Need, Program, Report, Suite, Test,
    User, eventually, test,
};
use serde_json::json;

const UID: &str = "4a6f8bd5-03bf-4ca4-8d5f-5c1c2a3e7a01";
/// The pod's cgroup, named as the kubelet's `cgroupfs` driver does.
const POD: &str = "/kubepods/burstable/pod4a6f8bd5-03bf-4ca4-8d5f-5c1c2a3e7a01";
/// The first port of a test: all ports are free in its own namespaces.
const API_PORT: u16 = 6443;
/// The loopback address of a pod.
const LOOPBACK: &str = "127.0.0.1";
/// Time between two leaks: longer than between the connections of a pool that warms up.
const BETWEEN_LEAKS: Duration = Duration::from_millis(1300);

pub(crate) fn tests() -> Vec<Test> {
    let tests = vec![
        test("names_code_and_pod", names_code_and_pod),
        test("names_pods_once_the_api_server_answers", names_pods_once_the_api_server_answers),
        test("asks_the_kubelet", asks_the_kubelet),
        test("names_servers", names_servers),
        test("asks_no_stranger", asks_no_stranger),
    ];
    let needs = [Need::Ip, Need::Runc, Need::Openssl, Need::Image];
    let tests = tests
        .into_iter()
        .chain(capabilities::tests())
        .chain(real::tests())
        .map(|test| needs.into_iter().fold(test, Test::needs));
    tests.collect()
}

/// A node: a network namespace with the tracer, and one with a pod and a server.
struct Node {
    tracer_network: Namespace,
    pod_network: Namespace,
    api: StandIn,
    server: FakeServer,
}

impl Node {
    fn new(suite: &Suite) -> Result<Self> {
        let (tracer_network, ()) = Namespace::create(|| Ok(()))?;
        let (pod_network, server) = Namespace::create(|| FakeServer::start(Manner::Postgres))?;
        let api = StandIn::start(suite, &tracer_network, API_PORT)?;
        Ok(Self { tracer_network, pod_network, api, server })
    }

    fn program(&self, suite: &Suite) -> Result<Container> {
        let binary = suite.static_client_path()?;
        Container::start_below(suite, &binary, &self.pod_network, User::Root, POD)
    }

    fn trace(
        &self,
        suite: &Suite,
        manifest: &Manifest,
        more: &[(&str, &str)],
    ) -> Result<TracerPod> {
        let options = suite.trace_port(self.server.port());
        let options = options.option("--pod-label", "app").flag("-v");
        let options = more.iter().fold(options, |all, (name, value)| all.option(name, value));
        TracerPod::start(suite, manifest, &self.tracer_network, self.api.access(), options)
    }
}

fn pod<'a>(running: Option<&'a str>) -> PodOnNode<'a> {
    PodOnNode {
        namespace: "shop",
        name: "orders-7d9f-x2b4q",
        uid: UID,
        // Two containers, so that the tracer needs the status to know which one runs.
        containers: &["app", "proxy"],
        running,
        labels: json!({"app": "orders", "pod-template-hash": "7d9f"}),
    }
}

/// Opens connections and never uses them again, until the tracer reports a leak.
fn leak(port: u16, tracer: &TracerPod, program: &mut Program) -> Result<()> {
    tracer.finding_while(harness::Finding::is_leak, leaking(port, program)).map(drop)
}

/// Opens one more such connection at each call, if enough time has passed.
fn leaking(port: u16, program: &mut Program) -> impl FnMut() -> Result<()> {
    let mut next = Instant::now();
    move || {
        if Instant::now() >= next {
            next = Instant::now() + BETWEEN_LEAKS;
            program.ok(&format!("connect 4 {port}"))?;
            program.ok("startup")?;
            program.ok("query SELECT 1")?;
        }
        Ok(())
    }
}

/// Checks the leak's code: the tracer symbolized it from a file in the other container.
fn check_stacks(report: &Report) -> Result<()> {
    let finding = report.leaks().into_iter().next().context("the report has no leak")?;
    let stack = report.stack(finding.stack.as_ref())?;
    let frame = stack.frame("do_query")?;
    assert!(frame.file.as_deref().is_some_and(|file| file.ends_with("client.c")), "{frame:?}");
    assert_eq!(
        (stack.quality.as_str(), frame.module.as_deref()),
        ("complete", Some("/srv/program"))
    );
    Ok(())
}

fn check_pod(report: &Report, program: &Container, uid: &str) -> Result<()> {
    check_names(report, program.pid(), program.id(), uid)
}

fn check_names(report: &Report, pid: u32, container: &str, uid: &str) -> Result<()> {
    let process = report.process(pid)?;
    assert_eq!(process.container_id.as_deref(), Some(container));
    assert_eq!(process.pod_uid.as_deref(), Some(uid));
    let pod = process.pod.as_ref().context("the process has no pod")?;
    let names = [&pod.namespace, &pod.name, &pod.container].map(String::as_str);
    assert_eq!(names, ["shop", "orders-7d9f-x2b4q", "app"]);
    let labels: Vec<_> = pod.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(labels, [("app", "orders")], "only the label that was asked for");
    Ok(())
}

fn names_code_and_pod(suite: &Suite) -> Result<()> {
    let mut node = Node::new(suite)?;
    node.api.listen()?;
    node.api.put(&pod(None))?;
    let manifest = Manifest::read()?;
    let tracer = node.trace(suite, &manifest, &[])?;
    let mut program = node.program(suite)?;
    tracer.says("names the pods of this node: 1")?;
    node.api.put(&pod(Some(program.id())))?;
    leak(node.server.port(), &tracer, &mut program)?;
    check_metrics(&node.tracer_network, LOOPBACK, &manifest)?;
    let report = tracer.stop()?;
    check_stacks(&report)?;
    check_pod(&report, &program, UID)?;
    program.delete()
}

/// Tracing begins before the API server answers, and pods are named once it does. Updates after the
/// server has ended the watch arrive through a new watch, without another list.
fn names_pods_once_the_api_server_answers(suite: &Suite) -> Result<()> {
    let mut node = Node::new(suite)?;
    let tracer = node.trace(suite, &Manifest::read()?, &[])?;
    let said = tracer.says("cannot be queried for the names of pods")?;
    ensure!(said.contains("refused"), "{said}");
    let mut program = node.program(suite)?;
    program.ok(&format!("connect 4 {}", node.server.port()))?;
    program.ok("startup")?;
    node.api.put(&pod(None))?;
    node.api.listen()?;
    tracer.says("the API server answers again and names the pods of this node: 1")?;
    eventually("a watch", || Ok(node.api.asked()?.number("watches")? >= 1))?;
    node.api.hang_up()?;
    eventually("another watch", || Ok(node.api.asked()?.number("watches")? >= 2))?;
    node.api.put(&pod(Some(program.id())))?;
    leak(node.server.port(), &tracer, &mut program)?;
    assert_eq!(node.api.asked()?.number("lists")?, 1);
    let warnings = tracer.log().iter().filter(|line| line.contains("cannot be queried")).count();
    assert_eq!(warnings, 1, "the tracer must warn once: {:?}", tracer.log());
    check_pod(&tracer.stop()?, &program, UID)?;
    program.delete()
}

/// Connections to a service's address, to a pod's address on another node, and to an unknown
/// address.
fn names_servers(suite: &Suite) -> Result<()> {
    const ADDRESSES: [&str; 3] = ["10.96.7.7", "10.244.1.9", "10.244.1.10"];
    let [service, pod, nobody] = ADDRESSES;
    let mut node = Node::new(suite)?;
    node.server = node.pod_network.run(|| {
        ADDRESSES.iter().try_for_each(|address| add_address(address))?;
        FakeServer::start_at(Ipv4Addr::UNSPECIFIED, Manner::Postgres)
    })?;
    node.api.listen()?;
    node.api.put_object(&json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "db", "name": "postgres", "uid": "1"},
        "spec": {"clusterIP": service}}))?;
    node.api.put_object(&json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "db", "name": "postgres-0", "uid": "2"},
        "spec": {"nodeName": "node-2", "containers": []},
        "status": {"podIP": pod, "phase": "Running"}}))?;
    let mut program = node.program(suite)?;
    let tracer = node.trace(suite, &Manifest::read()?, &[])?;
    for address in ADDRESSES {
        program.ok(&format!("connect {address} {}", node.server.port()))?;
        program.ok("startup")?;
    }
    tracer.says(&format!("{service} is service db/postgres"))?;
    tracer.says(&format!("{pod} is pod db/postgres-0"))?;
    let report = tracer.stop()?;
    let name = |kind: &str, name: &str| {
        let [kind, namespace, name] = [kind, "db", name].map(str::to_owned);
        Some(Destination { kind, namespace, name })
    };
    let expected =
        [(service, name("service", "postgres")), (pod, name("pod", "postgres-0")), (nobody, None)];
    for (address, name) in expected {
        let to = |connection: &&harness::Connection| connection.remote.starts_with(address);
        let connection = report.connections.iter().find(to).context(address)?;
        assert_eq!(connection.destination, name);
    }
    program.delete()
}

/// Adds an address to this network namespace.
fn add_address(address: &str) -> Result<()> {
    let added = Command::new("ip").args(["address", "add", address, "dev", "lo"]).status()?;
    ensure!(added.success(), "{address}: {added}");
    Ok(())
}

fn asks_the_kubelet(suite: &Suite) -> Result<()> {
    let mut node = Node::new(suite)?;
    node.api.listen()?;
    let mut program = node.program(suite)?;
    node.api.put(&pod(Some(program.id())))?;
    let url = format!("https://127.0.0.1:{}", node.api.access().port);
    let kubelet = [("--kubernetes", "kubelet"), ("--kubelet-url", &url)];
    let tracer = node.trace(suite, &Manifest::read()?, &kubelet)?;
    tracer.says("the kubelet names the pods of this node: 1")?;
    program.ok(&format!("connect 4 {}", node.server.port()))?;
    program.ok("startup")?;
    tracer.event("connection_opened", |_| true)?;
    check_pod(&tracer.stop()?, &program, UID)?;
    program.delete()
}

/// The tracer accepts a certificate that the cluster's CA has not signed only with the option for
/// it. Without the option, it does not send the token.
fn asks_no_stranger(suite: &Suite) -> Result<()> {
    let mut node = Node::new(suite)?;
    node.api.distrust(suite)?;
    node.api.listen()?;
    node.api.put(&pod(None))?;
    let (manifest, url) =
        (Manifest::read()?, format!("https://127.0.0.1:{}", node.api.access().port));
    let kubelet = [("--kubernetes", "kubelet"), ("--kubelet-url", url.as_str())];
    let tracer = node.trace(suite, &manifest, &kubelet)?;
    let said = tracer.says("the kubelet cannot be queried for the names of pods")?;
    ensure!(said.contains("certificate"), "{said}");
    tracer.stop()?;
    let asked = node.api.asked()?;
    assert_eq!((asked.number("lists")?, asked.number("refusals")?), (0, 0));
    let options = suite.trace_port(node.server.port()).flag("--kubelet-insecure-tls");
    let options = kubelet.iter().fold(options, |all, (name, value)| all.option(name, value));
    let access = node.api.access();
    let tracer = TracerPod::start(suite, &manifest, &node.tracer_network, access, options)?;
    tracer.says("the kubelet names the pods of this node: 1")?;
    tracer.stop().map(drop)
}

/// Requests the kubelet's probes, and the metrics: they carry the name of the leaking pod.
fn check_metrics(network: &Namespace, host: &str, manifest: &Manifest) -> Result<()> {
    let address = format!("{host}:{}", manifest.metrics_port()?);
    for probe in manifest.probes()? {
        get(network, &address, &probe)?;
    }
    let labels = [
        r#"namespace="shop""#,
        r#"pod="orders-7d9f-x2b4q""#,
        r#"container="app""#,
        r#"comm="program""#,
    ];
    eventually("the leak's pod is in the metrics", || {
        let metrics = get(network, &address, "/metrics")?;
        let mut suspected = metrics
            .lines()
            .filter(|line| line.starts_with("pgsocktrace_suspected_leaked_connections{"));
        Ok(suspected
            .any(|line| !line.ends_with(" 0") && labels.iter().all(|label| line.contains(label))))
    })
}
