//! Containers run by `runc`, from a scratch image.
//!
//! The image holds one static program. `runc` mounts an overlay of it in its own mount namespace,
//! so that no mount can be left behind.

use std::ffi::CString;
use std::fs;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::cgroup::Cgroup;
use crate::leftovers;
use crate::namespace::Namespace;
use crate::process::eventually;
use crate::program::Program;
use crate::suite::{Suite, finish};

/// First user id of a container that has a user namespace.
const FIRST_ID: u32 = 100_000;
/// Another user id of the host, which owns the program only.
const OWNER: u32 = 1000;

/// The user that a container's program runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// The host's root, without capabilities.
    Root,
    /// Root of the container's own user namespace.
    OwnRoot,
    /// A user of the host with no other processes; only it may read the program.
    Owner,
}

/// A running container, with the program that it runs.
pub struct Container {
    program: Program,
    cgroup: Cgroup,
    state: PathBuf,
    pid: u32,
}

impl Container {
    /// Starts a static program in a new container in this network namespace; with `users`, also in
    /// a new user namespace.
    pub fn start(suite: &Suite, binary: &Path, network: &Namespace, users: bool) -> Result<Self> {
        let user = if users { User::OwnRoot } else { User::Root };
        Self::start_below(suite, binary, network, user, "")
    }

    /// Like [`Self::start`], with the container's cgroup below `parent`, a path such as
    /// `/kubepods`.
    pub fn start_below(
        suite: &Suite,
        binary: &Path,
        network: &Namespace,
        user: User,
        parent: &str,
    ) -> Result<Self> {
        let directory = suite.directory()?;
        let at = |name: &str| -> Result<PathBuf> {
            let path = directory.join(name);
            fs::create_dir(&path)?;
            Ok(path)
        };
        let (image, upper, work) = (at("image")?, at("upper")?, at("work")?);
        let (bundle, state, root) = (at("bundle")?, at("state")?, at("root")?);
        for name in ["proc", "srv"] {
            fs::create_dir(image.join(name))?;
        }
        fs::copy(binary, image.join("srv/program"))?;
        if user == User::Owner {
            chown(image.join("srv/program"), Some(OWNER), Some(OWNER))?;
            fs::set_permissions(image.join("srv/program"), fs::Permissions::from_mode(0o500))?;
        }
        if user == User::OwnRoot {
            // The container's root is an unprivileged user on the host: make its root directory
            // writable.
            for path in [&image, &image.join("proc"), &image.join("srv"), &upper] {
                chown(path, Some(FIRST_ID), Some(FIRST_ID))?;
            }
        }
        let cgroup = Cgroup::new(parent)?;
        let config = configuration(&root, &network.path(), user, &cgroup);
        fs::write(bundle.join("config.json"), serde_json::to_vec(&config)?)?;

        let mut command = runc(&state);
        command.args(["run", "--no-pivot", "--bundle"]).arg(&bundle).arg(&cgroup.id);
        overlay_first(&mut command, &image, &upper, &work, &root)?;
        let program = Program::start(&mut command)?;
        // From here on, dropping `container` deletes it.
        let mut container = Self { program, cgroup, state, pid: 0 };
        eventually("the container runs", || {
            container.pid = container.running_pid()?;
            Ok(container.pid != 0)
        })
        .with_context(|| container.program.complaints())?;
        Ok(container)
    }

    /// The container's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.cgroup.id
    }

    /// PID of the container's program on the host.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Like [`running_pid`], of this container.
    fn running_pid(&self) -> Result<u32> {
        running_pid(&self.state, self.id())
    }

    /// Deletes the container, and makes sure that nothing is left behind.
    pub fn delete(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        if self.cgroup.id.is_empty() {
            return Ok(());
        }
        let cgroup = std::mem::take(&mut self.cgroup);
        let output = finish(runc(&self.state).args(["delete", "--force", &cgroup.id]))?;
        self.program.ended()?;
        cgroup.ensure_gone().with_context(|| format!("{output:?}"))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("cannot delete a container: {error:#}");
        }
    }
}

impl Deref for Container {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.program
    }
}

impl DerefMut for Container {
    fn deref_mut(&mut self) -> &mut Program {
        &mut self.program
    }
}

pub(crate) fn runc(state: &Path) -> Command {
    let mut command = Command::new("runc");
    command.arg("--root").arg(state);
    command
}

/// PID of a container's program, 0 until it runs.
pub(crate) fn running_pid(state: &Path, id: &str) -> Result<u32> {
    let output = finish(runc(state).args(["state", id]))?;
    let Ok(state) = serde_json::from_slice::<Value>(&output.stdout) else { return Ok(0) };
    let pid = state["pid"].as_u64().filter(|_| state["status"] == "running");
    Ok(u32::try_from(pid.unwrap_or(0))?)
}

/// Makes `runc` mount the overlay of the image before it looks for the root directory.
fn overlay_first(
    command: &mut Command,
    image: &Path,
    upper: &Path,
    work: &Path,
    root: &Path,
) -> Result<()> {
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        image.display(),
        upper.display(),
        work.display()
    );
    let (options, root) = (CString::new(options)?, CString::new(root.as_os_str().as_bytes())?);
    // SAFETY: unshare and mount are plain system calls, and the strings live in the closure.
    unsafe {
        command.pre_exec(move || {
            own_mounts()?;
            let kind = c"overlay".as_ptr();
            match libc::mount(kind, root.as_ptr(), kind, 0, options.as_ptr().cast()) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
    }
    Ok(())
}

/// Moves the calling process to a new mount namespace, from which mounts do not propagate.
pub(crate) fn own_mounts() -> io::Result<()> {
    let flags = libc::MS_REC | libc::MS_PRIVATE;
    let none = std::ptr::null();
    // SAFETY: both are plain system calls on valid strings, and the process has one thread.
    let made = unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(none, c"/".as_ptr(), none, flags, none.cast()) == 0
    };
    if made { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The bundle's configuration, by the OCI runtime specification.
fn configuration(root: &Path, network: &str, user: User, cgroup: &Cgroup) -> Value {
    let mut namespaces = vec![
        json!({"type": "pid"}),
        json!({"type": "ipc"}),
        json!({"type": "uts"}),
        json!({"type": "mount"}),
        json!({"type": "network", "path": network}),
    ];
    let mut linux = json!({
        "cgroupsPath": cgroup.path(),
        "resources": {"devices": [{"allow": false, "access": "rwm"}]},
    });
    if user == User::OwnRoot {
        namespaces.push(json!({"type": "user"}));
        let mapping = json!([{"containerID": 0, "hostID": FIRST_ID, "size": 65_536}]);
        linux["uidMappings"] = mapping.clone();
        linux["gidMappings"] = mapping;
    }
    let id = if user == User::Owner { OWNER } else { 0 };
    linux["namespaces"] = Value::Array(namespaces);
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": root, "readonly": true},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "process": {
            "cwd": "/",
            "args": ["/srv/program"],
            "env": [leftovers::variable()],
            "user": {"uid": id, "gid": id},
            "noNewPrivileges": true,
        },
        "linux": linux,
    })
}

/// Runs `command` in `mounted` as its root directory, to which `root` is bound.
pub fn confine(command: &mut Command, root: &Path, mounted: &Path) -> Result<()> {
    if root == mounted {
        bail!("a directory cannot be bound to itself here");
    }
    let root = CString::new(root.as_os_str().as_bytes())?;
    let mounted = CString::new(mounted.as_os_str().as_bytes())?;
    // SAFETY: these are plain system calls, and the strings live in the closure.
    unsafe {
        command.pre_exec(move || {
            own_mounts()?;
            let none = std::ptr::null();
            let bind = libc::MS_BIND;
            let confined = libc::mount(root.as_ptr(), mounted.as_ptr(), none, bind, none.cast())
                == 0
                && libc::chroot(mounted.as_ptr()) == 0
                && libc::chdir(c"/".as_ptr()) == 0;
            if confined { Ok(()) } else { Err(io::Error::last_os_error()) }
        });
    }
    Ok(())
}
