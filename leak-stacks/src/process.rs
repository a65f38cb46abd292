//! Reads processes through `/proc`: identity, mappings, memory, and the files that they run.

pub(crate) mod blocked;
pub(crate) mod file_id;
pub(crate) mod maps;
pub(crate) mod memory;
pub(crate) mod memory_file;
pub(crate) mod options;
pub(crate) mod root;
pub(crate) mod snapshot;
pub(crate) mod stat;
pub(crate) mod vdso;
pub(crate) mod watchdog;

use serde::{Deserialize, Serialize};

/// A process's identity. PIDs are reused; a PID with its start time is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessKey {
    /// PID as the node numbers it.
    pub pid: u32,
    /// Start time in clock ticks since boot: field 22 of `/proc/PID/stat`.
    pub start_ticks: u64,
}
