//! A real node: containerd and a kubelet, which run the pods that an API server assigns to them.
//!
//! Both programs would write to many directories of the host. They run in their own mount
//! namespace, which replaces these directories, and the kernel's settings that a kubelet changes,
//! by files of the test. Their containers run in a cgroup of the test.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{io, ptr};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::api_server::{SERVICE, last_lines};
use super::{ApiServer, Image, NODE, archive, programs};
use crate::cgroup::Domain;
use crate::container::own_mounts;
use support::command::output;

use crate::process::{Guarded, eventually, start_silently};
use crate::suite::{APPS, Suite, finish};

/// Directories that are empty in the mount namespace.
const PLACES: [&str; 3] = ["/run", "/var/lib", "/var/log"];
/// The kernel's settings that a kubelet requires, below /proc/sys.
const SETTINGS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];
/// The image of the container that holds each pod's namespaces.
const PAUSE: &str = "localhost/pause:1";

/// A running node. Dropping it ends its containers.
pub struct Worker<'a> {
    api: &'a ApiServer<'a>,
    directory: PathBuf,
    /// In the order in which they are stopped.
    processes: Vec<(&'static str, Guarded)>,
    domain: Domain,
}

impl<'a> Worker<'a> {
    /// Starts a node with the tracer's image in the API server's network namespace, and waits until
    /// it can run pods.
    pub fn start(suite: &Suite, api: &'a ApiServer<'a>) -> Result<Self> {
        let directory = suite.directory()?;
        let domain = Domain::create()?;
        let mut worker = Self { api, directory, processes: Vec::new(), domain };
        worker.start_containerd()?;
        let pause = worker.directory.join("pause");
        output(
            Command::new("gcc")
                .args(["-static", "-O2", "-o"])
                .arg(&pause)
                .arg(format!("{APPS}/cluster/pause.c")),
        )?;
        worker.import_program(PAUSE, &pause, 0)?;
        worker.import(&Image::path())?;
        worker.start_kubelet()?;
        let kubectl = api.kubectl();
        // The API server presents its certificate as user `server` when it reads logs from
        // kubelets.
        let role = "--clusterrole=system:kubelet-api-admin";
        kubectl.says(&["create", "clusterrolebinding", "server", role, "--user=server"])?;
        let node = format!("node/{NODE}");
        eventually("the node is ready", || {
            Ok(kubectl.says(&["wait", "--for=condition=Ready", "--timeout=1s", &node]).is_ok())
        })
        .with_context(|| worker.complaints())?;
        Ok(worker)
    }

    /// Imports an image with only this static program, which `user` runs as `/srv/program`.
    pub fn import_program(&self, image: &str, program: &Path, user: u32) -> Result<()> {
        let name = image.replace(['/', ':'], "-");
        self.import(&archive::write(&self.directory.join(name), image, program, user)?)
    }

    /// PID of the only process in the container with this id.
    pub fn pid(&self, container: &str) -> Result<u32> {
        let inside = |pid: &u32| {
            let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            cgroups.contains(container)
        };
        let mut found = self.domain.processes()?.into_iter().filter(inside);
        let pid = found.next().with_context(|| format!("nothing runs in {container}"))?;
        ensure!(found.next().is_none(), "{container} has several processes");
        Ok(pid)
    }

    /// The last log lines of containerd and the kubelet, for error messages.
    #[must_use]
    pub fn complaints(&self) -> String {
        let said = |(name, _): &(&str, Guarded)| {
            format!("{name}: {}", last_lines(&self.directory.join(name).with_extension("log")))
        };
        let said: Vec<_> = self.processes.iter().map(said).collect();
        format!("{}\n{}", said.join("\n"), self.api.complaints())
    }

    fn start_containerd(&mut self) -> Result<()> {
        let at = |name: &str| self.directory.join(name).display().to_string();
        let config = format!(
            r#"version = 2
root = "{}"
state = "/run/containerd"
[grpc]
address = "{}"
[plugins."io.containerd.internal.v1.opt"]
path = "{}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{}"
"#,
            at("containerd"),
            at("containerd.sock"),
            at("opt"),
            at("cni")
        );
        fs::write(self.directory.join("containerd.toml"), config)?;
        let addresses = json!({"type": "host-local", "dataDir": at("addresses"),
            "ranges": [[{"subnet": "10.88.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]});
        let bridge = json!({"type": "bridge", "bridge": "pods", "isGateway": true,
            "ipam": addresses});
        let network = json!({"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge]});
        fs::create_dir(self.directory.join("cni"))?;
        fs::write(self.directory.join("cni/pods.conflist"), network.to_string())?;

        let mut command = Command::new("containerd");
        command.arg("--config").arg(self.directory.join("containerd.toml"));
        replace(&mut command, self.replacements()?)?;
        let pid = self.run("containerd", &mut command)?;
        self.domain.take(pid)?;
        eventually("containerd is ready", || {
            Ok(finish(self.ctr()?.arg("version"))?.status.success())
        })
        .with_context(|| self.complaints())
    }

    fn start_kubelet(&mut self) -> Result<()> {
        let unlimited = json!({"memory.available": "0%", "nodefs.available": "0%",
            "nodefs.inodesFree": "0%", "imagefs.available": "0%"});
        let config = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            // The API server authorizes requests to the kubelet (mode Webhook).
            "authentication": {"x509": {"clientCAFile": self.api.file("account/ca.crt")}},
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": self.api.file("server.crt"),
            "tlsPrivateKeyFile": self.api.file("server.key"),
            "cgroupRoot": self.domain.path(),
            "failSwapOn": false,
            // No eviction when the host's disk is nearly full.
            "evictionHard": unlimited,
            "imageGCHighThresholdPercent": 100,
            "volumePluginDir": self.directory.join("plugins"),
        });
        fs::write(self.directory.join("kubelet.json"), config.to_string())?;
        let mut command = Command::new(programs()?.join("kubelet"));
        command
            .arg("--config")
            .arg(self.directory.join("kubelet.json"))
            .arg("--kubeconfig")
            .arg(self.api.file("kubelet.config"))
            .arg(format!("--hostname-override={NODE}"))
            .arg(format!("--node-ip={SERVICE}"))
            .args(["--container-runtime=remote", "--container-runtime-endpoint"])
            .arg(format!("unix://{}", self.directory.join("containerd.sock").display()));
        self.join_mounts(&mut command)?;
        let pid = self.run("kubelet", &mut command)?;
        self.domain.take(pid)
    }

    fn import(&self, archive: &Path) -> Result<()> {
        output(self.ctr()?.args(["--namespace=k8s.io", "images", "import"]).arg(archive)).map(drop)
    }

    fn ctr(&self) -> Result<Command> {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.directory.join("containerd.sock"));
        self.join_mounts(&mut command)?;
        Ok(command)
    }

    /// Runs a command in containerd's mount namespace.
    fn join_mounts(&self, command: &mut Command) -> Result<()> {
        let (_, containerd) = self.processes.last().context("containerd does not run")?;
        let mounts = File::open(format!("/proc/{}/ns/mnt", containerd.pid()))?;
        // SAFETY: setns is async-signal-safe, and the descriptor stays open in the closure.
        unsafe {
            command.pre_exec(move || match libc::setns(mounts.as_raw_fd(), libc::CLONE_NEWNS) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        Ok(())
    }

    fn run(&mut self, name: &'static str, command: &mut Command) -> Result<u32> {
        self.api.network().adopt(command)?;
        let log = self.directory.join(name).with_extension("log");
        let started = start_silently(command, Stdio::null(), &log).context(name)?;
        let pid = started.pid();
        self.processes.insert(0, (name, started));
        Ok(pid)
    }

    /// Pairs of a replacement and the path that it replaces.
    fn replacements(&self) -> Result<Vec<(PathBuf, PathBuf)>> {
        let mut all = Vec::new();
        for place in PLACES {
            let ours = self.directory.join("places").join(place.trim_start_matches('/'));
            fs::create_dir_all(&ours)?;
            all.push((ours, place.into()));
        }
        for (setting, value) in SETTINGS {
            let ours = self.directory.join("settings").join(setting);
            fs::create_dir_all(ours.parent().context("settings")?)?;
            fs::write(&ours, value)?;
            all.push((ours, Path::new("/proc/sys").join(setting)));
        }
        Ok(all)
    }
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        // Stop containerd and the kubelet first; dropping `domain` then kills the containers.
        self.processes.clear();
    }
}

/// Runs a command in a new mount namespace, in which the first path of each pair is bound to the
/// second one.
fn replace(command: &mut Command, pairs: Vec<(PathBuf, PathBuf)>) -> Result<()> {
    let text = |path: PathBuf| CString::new(path.as_os_str().as_bytes());
    let pairs: Vec<(CString, CString)> = pairs
        .into_iter()
        .map(|(ours, theirs)| Ok((text(ours)?, text(theirs)?)))
        .collect::<Result<_>>()?;
    // SAFETY: unshare and mount are plain system calls, and the strings live in the closure.
    unsafe {
        command.pre_exec(move || {
            own_mounts()?;
            let none = ptr::null();
            for (ours, theirs) in &pairs {
                let (ours, theirs) = (ours.as_ptr(), theirs.as_ptr());
                if libc::mount(ours, theirs, none, libc::MS_BIND, none.cast()) != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    Ok(())
}
