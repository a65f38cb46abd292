//! Which file system a process sees.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

/// Tells one view of the file system from another: whoever may mount or change the root shows other
/// files under the same paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Root {
    mount_namespace: u64,
    device: u64,
    inode: u64,
}

impl Root {
    /// That of the process which has this PID now.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let mount_namespace = fs::metadata(format!("/proc/{pid}/ns/mnt")).ok()?.ino();
        let root = fs::metadata(format!("/proc/{pid}/root")).ok()?;
        Some(Self { mount_namespace, device: root.dev(), inode: root.ino() })
    }
}
