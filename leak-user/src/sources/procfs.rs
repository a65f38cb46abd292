//! Processes as procfs shows them: identity, name, container, descendants, and who holds a socket.
//!
//! Everything here can vanish while it is being read; that is [`ProcessError::Gone`], not a fault.

pub mod container;
pub mod holders;
pub mod name;

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::{Duration, SystemTime};

use leak_stacks::{Stat, nanoseconds_per_tick};
use rustix::time::{ClockId, clock_gettime};

use crate::model::ProcessKey;
use crate::model::process::ProcessInfo;

/// Why nothing can be said of a process.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It exited, or its PID now belongs to another process.
    #[error("process {pid} no longer exists")]
    Gone {
        /// Its PID.
        pid: u32,
    },
    /// procfs refuses it.
    #[error("cannot read {path}: {source}; run as root, with /proc mounted without hidepid")]
    Unreadable {
        /// The file that was refused.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
    /// procfs holds something else than proc_pid_stat(5) promises.
    #[error("/proc/{pid}/stat does not look as proc_pid_stat(5) says; please report this kernel")]
    Malformed {
        /// The process's PID.
        pid: u32,
    },
}

impl ProcessError {
    fn new(pid: u32, path: String, source: io::Error) -> Self {
        if is_gone(&source) { Self::Gone { pid } } else { Self::Unreadable { path, source } }
    }
}

/// Whether procfs answered so because the process has exited.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

impl ProcessInfo {
    /// What can still be said of a process that is gone.
    #[must_use]
    pub fn gone(key: ProcessKey, comm: &str) -> Self {
        let started_at = started_at(key);
        Self {
            key,
            comm: comm.to_owned(),
            exe: None,
            container_id: None,
            container_pid: None,
            pod_uid: None,
            pod: None,
            started_at,
        }
    }
}

fn stat(pid: u32) -> Result<Stat, ProcessError> {
    Stat::read(pid).map_err(|source| match source.kind() {
        io::ErrorKind::InvalidData => ProcessError::Malformed { pid },
        _ => ProcessError::new(pid, format!("/proc/{pid}/stat"), source),
    })
}

/// Reads a process's identity.
///
/// # Errors
///
/// When the process is gone or procfs cannot be read.
pub fn identify(pid: u32) -> Result<ProcessKey, ProcessError> {
    stat(pid).map(|stat| ProcessKey { pid, start_ticks: stat.start_ticks })
}

/// Whether exactly this process, not one that got its PID, still runs. One that has exited and was not
/// waited for does not.
#[must_use]
pub fn is_running(process: ProcessKey) -> bool {
    stat(process.pid).is_ok_and(|stat| stat.start_ticks == process.start_ticks && !stat.has_exited)
}

/// Whether a process has this thread.
#[must_use]
pub fn has_thread(pid: u32, tid: u32) -> bool {
    std::fs::exists(format!("/proc/{pid}/task/{tid}")).unwrap_or(true)
}

/// Describes a process. What needs more privileges than there are is `None`.
///
/// # Errors
///
/// When the process is gone, also when its PID was reused meanwhile, or procfs cannot be read.
pub fn describe(key: ProcessKey) -> Result<ProcessInfo, ProcessError> {
    let pid = key.pid;
    let path = format!("/proc/{pid}/comm");
    let comm = std::fs::read(&path).map_err(|source| ProcessError::new(pid, path, source))?;
    let exe = std::fs::read_link(format!("/proc/{pid}/exe")).ok().map(|path| {
        let path = path.to_string_lossy();
        path.strip_suffix(" (deleted)").unwrap_or(&path).to_owned()
    });
    let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let container_pid = std::fs::read(format!("/proc/{pid}/status"))
        .ok()
        .and_then(|status| innermost_pid(&String::from_utf8_lossy(&status)));
    let info = ProcessInfo {
        key,
        comm: String::from_utf8_lossy(comm.strip_suffix(b"\n").unwrap_or(&comm)).into_owned(),
        exe,
        container_id: container::id(&cgroup).map(str::to_owned),
        container_pid,
        pod_uid: container::pod_uid(&cgroup),
        pod: None,
        started_at: started_at(key),
    };
    // Asked last: whatever was read above is this process's only if it still has the PID now.
    if identify(pid)? == key { Ok(info) } else { Err(ProcessError::Gone { pid }) }
}

/// The PID in the innermost of several PID namespaces: the last number of `NSpid` in
/// `/proc/PID/status`, proc_pid_status(5), which begins with the one in procfs's own.
pub(crate) fn innermost_pid(status: &str) -> Option<u32> {
    let mut pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace();
    pids.next()?;
    pids.next_back()?.parse().ok()
}

fn started_at(key: ProcessKey) -> Option<SystemTime> {
    let since_boot = Duration::from_nanos(key.start_ticks.checked_mul(nanoseconds_per_tick())?);
    let now = clock_gettime(ClockId::Boottime);
    let uptime = Duration::new(u64::try_from(now.tv_sec).ok()?, u32::try_from(now.tv_nsec).ok()?);
    SystemTime::now().checked_sub(uptime)?.checked_add(since_boot)
}

/// PIDs of all processes that procfs shows.
///
/// # Errors
///
/// When `/proc` cannot be listed.
pub fn all() -> Result<Vec<u32>, ProcessError> {
    let unreadable = |source| ProcessError::Unreadable { path: "/proc".to_owned(), source };
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc").map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        pids.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(pids)
}

/// `roots` and what they have forked that still runs. A descendant whose parent has exited has
/// been adopted by another process and is not found.
///
/// # Errors
///
/// When `/proc` cannot be listed.
pub fn with_descendants(roots: &HashSet<u32>) -> Result<HashSet<u32>, ProcessError> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for pid in all()? {
        if let Ok(stat) = stat(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = roots.clone();
    let mut to_visit: Vec<u32> = roots.iter().copied().collect();
    while let Some(pid) = to_visit.pop() {
        let unseen = children.get(&pid).into_iter().flatten().filter(|pid| found.insert(**pid));
        to_visit.extend(unseen);
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
