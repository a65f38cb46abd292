//! What a report says of a process.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::model::{Pod, ProcessKey};

/// What a report says of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Identity.
    pub key: ProcessKey,
    /// Name, at most 15 bytes: `/proc/PID/comm`.
    pub comm: String,
    /// Path of the program in the process's own mount namespace; `None` when it cannot be read.
    pub exe: Option<String>,
    /// The container runtime's id, 64 hexadecimal digits.
    pub container_id: Option<String>,
    /// Its PID inside its container, when that is not the same: the innermost PID namespace's.
    pub container_pid: Option<u32>,
    /// UID of its Kubernetes pod, which its cgroup tells: of a static pod the kubelet's own.
    #[serde(default)]
    pub pod_uid: Option<String>,
    /// Its Kubernetes pod; `None` outside of one, and as long as nobody has told.
    #[serde(default)]
    pub pod: Option<Pod>,
    /// When it started, by the wall clock as it stands now.
    pub started_at: Option<SystemTime>,
}
