//! Cgroups of containers and of a whole node, in cgroup v1 and v2.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use crate::leftovers::{self, DIRECTORY};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::eventually;

/// Mount point of cgroup v2, or the parent directory of the v1 hierarchies.
const ROOT: &str = "/sys/fs/cgroup";

/// A container's path in all hierarchies.
#[derive(Default)]
pub(crate) struct Cgroup {
    /// The container's id: 64 hexadecimal digits that no other container has.
    pub(crate) id: String,
    parent: String,
}

impl Cgroup {
    /// Chooses a new path below `parent`, which is empty or begins with a slash.
    pub(crate) fn new(parent: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        let (pid, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let id = format!("{now:032x}{pid:016x}{count:016x}");
        Ok(Self { id, parent: parent.to_owned() })
    }

    /// The container's path, the same in every hierarchy.
    pub(crate) fn path(&self) -> String {
        format!("{}/{}", self.parent, self.id)
    }

    /// Removes the empty parents. Fails if a cgroup of the container still exists.
    pub(crate) fn ensure_gone(&self) -> Result<()> {
        for hierarchy in hierarchies()? {
            let path = hierarchy.join(self.path().trim_start_matches('/'));
            ensure!(!path.exists(), "left behind: {path:?}");
            let above = path.ancestors().skip(1).take_while(|path| *path != hierarchy);
            above.take_while(|path| is_removed(path)).for_each(drop);
        }
        Ok(())
    }
}

/// A cgroup in every hierarchy, below which a kubelet creates its own. Dropping it kills all
/// processes in it.
pub(crate) struct Domain {
    name: String,
}

impl Domain {
    /// Creates the domain, and removes the domains of earlier runs that were killed.
    pub(crate) fn create() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        for name in leftovers::of_dead_runs(hierarchies()?) {
            drop(Self { name });
        }
        let (pid, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let domain = Self { name: format!("{DIRECTORY}{pid}.{count}") };
        for path in domain.paths()? {
            fs::create_dir(&path)?;
            // A process cannot join a v1 cpuset whose CPUs and memory nodes are not set.
            for setting in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(parents) = fs::read(path.with_file_name(setting)) {
                    fs::write(path.join(setting), parents)?;
                }
            }
        }
        Ok(domain)
    }

    /// The domain's path, the same in every hierarchy.
    pub(crate) fn path(&self) -> String {
        format!("/{}", self.name)
    }

    /// Moves a process into the domain; its future children start there.
    pub(crate) fn take(&self, pid: u32) -> Result<()> {
        let mut paths = self.paths()?.into_iter();
        paths.try_for_each(|path| Ok(fs::write(path.join("cgroup.procs"), pid.to_string())?))
    }

    /// The processes in the domain and in the cgroups below it.
    pub(crate) fn processes(&self) -> Result<Vec<u32>> {
        let path = self.path();
        let is_ours = |line: &str| {
            line.splitn(3, ':').nth(2).is_some_and(|it| Path::new(it).starts_with(&path))
        };
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // The process may have ended since `read_dir`.
            let cgroups = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
            if cgroups.lines().any(is_ours) {
                found.push(pid);
            }
        }
        Ok(found)
    }

    fn paths(&self) -> Result<Vec<PathBuf>> {
        let inside = hierarchies()?.into_iter().filter(|path| path.join("cgroup.procs").exists());
        Ok(inside.map(|path| path.join(&self.name)).collect())
    }

    fn end(&self) -> Result<()> {
        eventually("all processes of the node end", || {
            let left = self.processes()?;
            for pid in &left {
                // The process may have ended already.
                let _ = Pid::from_raw(pid.cast_signed()).map(|pid| kill_process(pid, Signal::KILL));
            }
            Ok(left.is_empty())
        })?;
        self.paths()?.iter().filter(|path| path.exists()).try_for_each(|path| {
            remove_tree(path).with_context(|| format!("left behind: {}", path.display()))
        })
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("cannot remove the cgroups of a node: {error:#}");
        }
    }
}

/// Removes a cgroup and those below it.
fn remove_tree(path: &Path) -> Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    // A cgroup stays busy for a moment after its last process has vanished from /proc.
    eventually("a cgroup is empty", || Ok(is_removed(path)))
}

/// The directories in which cgroup hierarchies may be mounted; some may be empty.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let mut hierarchies = vec![PathBuf::from(ROOT)];
    for hierarchy in fs::read_dir(ROOT)? {
        hierarchies.push(hierarchy?.path());
    }
    Ok(hierarchies)
}

/// Removes a cgroup; false while processes are in it.
fn is_removed(path: &Path) -> bool {
    match fs::remove_dir(path) {
        Ok(()) => true,
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}
