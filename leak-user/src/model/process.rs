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
    /// The program that it runs; `None` when it cannot be read.
    #[serde(default)]
    pub program: Option<ProgramId>,
}

/// Tells programs apart, also those that have the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramId {
    /// The executable file.
    pub binary: u64,
    /// The executable file, and with what arguments, in which directory and container it runs: of
    /// an interpreter, the program that it interprets.
    pub command: u64,
}
