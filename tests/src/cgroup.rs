//! A container's place in the machine's cgroups, of either version.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};

/// Where the hierarchies are: this one, or those below it.
const ROOT: &str = "/sys/fs/cgroup";

/// Where a container's cgroups are.
#[derive(Default)]
pub(crate) struct Cgroup {
    /// The container's id: 64 hexadecimal digits that no other container has.
    pub(crate) id: String,
    parent: String,
}

impl Cgroup {
    /// A place below `parent`, which is empty or begins with a slash.
    pub(crate) fn new(parent: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        let (pid, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let id = format!("{now:032x}{pid:016x}{count:016x}");
        Ok(Self { id, parent: parent.to_owned() })
    }

    /// Its path in every hierarchy.
    pub(crate) fn path(&self) -> String {
        format!("{}/{}", self.parent, self.id)
    }

    /// Removes the empty parents, and makes sure that the container has none left.
    pub(crate) fn ensure_gone(&self) -> Result<()> {
        let mut hierarchies = vec![PathBuf::from(ROOT)];
        for hierarchy in fs::read_dir(ROOT)? {
            hierarchies.push(hierarchy?.path());
        }
        for hierarchy in hierarchies {
            let path = hierarchy.join(self.path().trim_start_matches('/'));
            ensure!(!path.exists(), "left behind: {path:?}");
            let above = path.ancestors().skip(1).take_while(|path| *path != hierarchy);
            above.take_while(|path| is_removed(path)).for_each(drop);
        }
        Ok(())
    }
}

/// Removes a cgroup, unless somebody else is in it.
fn is_removed(path: &Path) -> bool {
    match fs::remove_dir(path) {
        Ok(()) => true,
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}
