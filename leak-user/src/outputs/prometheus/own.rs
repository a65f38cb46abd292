//! What this program itself costs.

use std::time::{Duration, SystemTime};

use ::procfs::process::Process;

use crate::clock;
use crate::sources::procfs;

/// The usual figures about a process.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnCost {
    pub(super) cpu: Duration,
    pub(super) resident_bytes: u64,
    pub(super) virtual_bytes: u64,
    pub(super) started_at: SystemTime,
}

impl OwnCost {
    /// Measures it; `None` when procfs does not say.
    pub(super) fn measure() -> Option<Self> {
        let stat = Process::myself().ok()?.stat().ok()?;
        let page = rustix::param::page_size() as u64;
        let started_at =
            procfs::describe(procfs::identify(std::process::id()).ok()?).ok()?.started_at?;
        Some(Self {
            cpu: clock::cpu_time(),
            resident_bytes: stat.rss * page,
            virtual_bytes: stat.vsize,
            started_at,
        })
    }
}
