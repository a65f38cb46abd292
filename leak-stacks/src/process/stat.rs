//! Which process has a PID, and which of its programs it runs.

use std::os::unix::fs::MetadataExt;
use std::{fs, io};

use crate::process::ProcessKey;

/// `USER_HZ`: what `/proc/PID/stat` counts in, on every x86-64 kernel.
const TICKS_PER_SECOND: u64 = 100;

/// Device and inode behind `/proc/PID/exe`.
pub(crate) fn executable_identity(pid: u32) -> Option<(u64, u64)> {
    let metadata = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// When the process started, in seconds of the wall clock.
pub(crate) fn wall_clock_start(process: ProcessKey) -> Option<i64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let boot: i64 = stat.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse().ok()?;
    boot.checked_add(i64::try_from(process.start_ticks / TICKS_PER_SECOND).ok()?)
}

/// Which process has a PID, and which of its programs it runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    /// Clock ticks since boot.
    pub(crate) start_ticks: u64,
    /// See [`RawStack::image`](crate::raw::RawStack::image).
    pub(crate) image: u64,
}

impl Identity {
    /// Reads fields 22 and 28 of `/proc/PID/stat`, see proc_pid_stat(5).
    pub(crate) fn read(pid: u32) -> io::Result<Self> {
        let stat = fs::read(format!("/proc/{pid}/stat"))?;
        let stat = String::from_utf8_lossy(&stat);
        Self::parse(&stat)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no start time in stat"))
    }

    pub(crate) fn parse(stat: &str) -> Option<Self> {
        // Field 2, the name, is in parentheses and may hold anything, parentheses too.
        let (_, after) = stat.rsplit_once(") ")?;
        let mut fields = after.split(' ');
        let start_ticks = fields.nth(19)?.parse().ok()?;
        // The kernel tells it only to those who may look into the process.
        let image = fields.nth(5).and_then(|field| field.parse().ok()).unwrap_or(0);
        Some(Self { start_ticks, image })
    }
}

/// Start time of the process that has this PID now, in clock ticks since boot.
pub(crate) fn start_ticks(pid: u32) -> io::Result<u64> {
    Identity::read(pid).map(|identity| identity.start_ticks)
}
