//! A node without a cluster: `runc` runs the tracer's image as the DaemonSet says, with exactly the
//! manifest's capabilities, beside containers in the cgroups that a kubelet would create.
//!
//! A [`StandIn`] plays the API server. `cargo xtask test cluster` uses a real one, and a
//! [`Worker`].

mod api_server;
mod archive;
mod image;
mod kubectl;
mod manifest;
mod pod;
mod stand_in;
mod worker;

use std::env;
use std::fs;
use std::ops::Deref;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

pub use api_server::ApiServer;
pub use image::Image;
pub use kubectl::Kubectl;
pub use manifest::Manifest;
pub use pod::PodOnNode;
pub use stand_in::StandIn;
pub use worker::Worker;

use crate::cgroup::Cgroup;
use crate::container::runc;
use crate::http;
use crate::leftovers;
use crate::namespace::Namespace;
use crate::process::Signal;
use crate::report::Report;
use crate::suite::{Suite, finish};
use crate::trace::{Trace, TraceBuilder};

/// The path at which a pod finds its service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The paths of /proc and /sys that containerd masks in containers.
const MASKED: [&str; 9] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/firmware",
];
/// The paths that containerd mounts read-only.
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Environment variable: the directory of Kubernetes' programs.
const PROGRAMS: &str = "PGSOCKTRACE_KUBERNETES";

/// The node's name.
const NODE: &str = "node-1.example.org";

/// Everything a pod needs to talk to an API server on its own loopback.
pub struct Access {
    /// The name of the pod's node.
    pub node: String,
    /// The server's port.
    pub port: u16,
    /// The directory that is mounted in the pod as its service account.
    pub service_account: PathBuf,
}

/// The tracer's pod.
pub struct TracerPod {
    trace: Trace,
    container: RunningContainer,
}

/// A container, deleted on drop.
struct RunningContainer {
    cgroup: Cgroup,
    state: PathBuf,
}

impl TracerPod {
    /// Starts the pod in this network namespace with this service account, and waits until it
    /// traces.
    pub fn start(
        suite: &Suite,
        manifest: &Manifest,
        network: &Namespace,
        api: &Access,
        options: TraceBuilder,
    ) -> Result<Self> {
        let directory = suite.directory()?;
        let (bundle, state) = (directory.join("bundle"), directory.join("state"));
        fs::create_dir(&bundle)?;
        fs::create_dir(&state)?;
        let image = Image::unpack(&directory.join("root"))?;
        let cgroup = Cgroup::new("/kubepods/burstable/pod0a1b2c3d-0000-4000-8000-00000000dae0")?;
        let options = options.into_command();
        let options = options.get_args().map(|one| one.to_string_lossy().into_owned());
        let arguments: Vec<String> = image.entrypoint.iter().cloned().chain(options).collect();
        let config = configuration(&image, manifest, network, api, &arguments, &cgroup.path());
        fs::write(bundle.join("config.json"), serde_json::to_vec(&config)?)?;

        let mut command = runc(&state);
        command.args(["run", "--bundle"]).arg(&bundle).arg(&cgroup.id);
        let container = RunningContainer { cgroup, state };
        Ok(Self { trace: Trace::begin_in_container(&mut command)?, container })
    }

    /// Ends the trace as the kubelet does, reads its report, and makes sure that nothing is left
    /// behind.
    pub fn stop(self) -> Result<Report> {
        let Self { trace, mut container } = self;
        trace.signal(Signal::TERM);
        let outcome = trace.outcome()?;
        ensure!(outcome.status.success(), "ended with {}: {}", outcome.status, outcome.stderr);
        container.delete()?;
        outcome.report()
    }
}

impl RunningContainer {
    fn delete(&mut self) -> Result<()> {
        if self.cgroup.id.is_empty() {
            return Ok(());
        }
        let cgroup = std::mem::take(&mut self.cgroup);
        let output = finish(runc(&self.state).args(["delete", "--force", &cgroup.id]))?;
        cgroup.ensure_gone().with_context(|| format!("{output:?}"))
    }
}

impl Drop for RunningContainer {
    fn drop(&mut self) {
        if let Err(error) = self.delete() {
            eprintln!("cannot delete the tracer's container: {error:#}");
        }
    }
}

impl Deref for TracerPod {
    type Target = Trace;

    fn deref(&self) -> &Trace {
        &self.trace
    }
}

/// The configuration that the kubelet and containerd make of the manifest, by the OCI runtime
/// specification.
fn configuration(
    image: &Image,
    manifest: &Manifest,
    network: &Namespace,
    api: &Access,
    arguments: &[String],
    cgroup: &str,
) -> Value {
    let capabilities = manifest.capabilities();
    let mut namespaces = vec![
        json!({"type": "ipc"}),
        json!({"type": "uts"}),
        json!({"type": "mount"}),
        json!({"type": "network", "path": network.path()}),
    ];
    if !manifest.shares_pids() {
        namespaces.push(json!({"type": "pid"}));
    }
    let mut environment = image.environment.clone();
    environment.extend_from_slice(manifest.environment());
    environment.extend([
        leftovers::variable(),
        format!("PGSOCKTRACE_NODE_NAME={}", api.node),
        "KUBERNETES_SERVICE_HOST=127.0.0.1".to_owned(),
        format!("KUBERNETES_SERVICE_PORT={}", api.port),
    ]);
    json!({
        "ociVersion": "1.0.2",
        "hostname": "pgsocktrace-7k2xq",
        "root": {"path": image.root, "readonly": manifest.has_read_only_root()},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc",
                "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
                "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": SERVICE_ACCOUNT, "type": "bind", "source": api.service_account,
                "options": ["rbind", "ro"]},
        ],
        "process": {
            "cwd": "/",
            "args": arguments,
            "env": environment,
            "user": {"uid": manifest.user(), "gid": manifest.user()},
            "noNewPrivileges": !manifest.may_gain_privileges(),
            "capabilities": {
                "bounding": &capabilities, "effective": &capabilities, "permitted": &capabilities,
            },
        },
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": namespaces,
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            "resources": {
                "devices": [{"allow": false, "access": "rwm"}],
                "memory": {"limit": manifest.memory_limit()},
            },
        },
    })
}

/// Sends a GET request for `path` to `address` in this namespace. Any status but 200 is an error.
pub fn get(network: &Namespace, address: &str, path: &str) -> Result<String> {
    let address = address.parse()?;
    let answer = network.run(|| http::get(address, path, &[]))?;
    ensure!(answer.status == 200, "{path}: {answer:?}");
    Ok(answer.body)
}

/// The directory of a real Kubernetes' programs, which `cargo xtask test cluster` builds.
pub fn programs() -> Result<PathBuf> {
    env::var_os(PROGRAMS).map(PathBuf::from).with_context(|| format!("{PROGRAMS} is not set"))
}
