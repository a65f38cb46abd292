//! procfs as a source: the identity, name, container and descendants of processes.
//!
//! A process can exit while it is being read. That is [`ProcessError::Gone`], which is normal.

pub mod container;
pub mod name;
mod program;
pub mod selection;

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::{Duration, SystemTime};

use leak_stacks::{Stat, nanoseconds_per_tick};
use rustix::time::{ClockId, clock_gettime};

use crate::model::ProcessInfo;
use crate::model::ProcessKey;

/// Why a process cannot be described.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It exited, or its PID now belongs to another process.
    #[error("process {pid} no longer exists")]
    Gone {
        /// Its PID.
        pid: u32,
    },
    /// procfs refuses access.
    #[error("cannot read {path}: {source}; run as root, with /proc mounted without hidepid")]
    Unreadable {
        /// The file.
        path: String,
        /// The system's error.
        source: io::Error,
    },
    /// The file does not have the format of proc_pid_stat(5).
    #[error("/proc/{pid}/stat does not have the expected format; please report this kernel")]
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

/// Whether procfs returned this error because the process has exited.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

impl ProcessInfo {
    /// Describes a process that has exited.
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
            program: None,
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

/// Whether this very process still runs, not another one that reuses its PID. Zombies do not run.
#[must_use]
pub fn is_running(process: ProcessKey) -> bool {
    stat(process.pid).is_ok_and(|stat| stat.start_ticks == process.start_ticks && !stat.has_exited)
}

/// Whether a process has this thread; true if that cannot be found out.
#[must_use]
pub fn has_thread(pid: u32, tid: u32) -> bool {
    std::fs::exists(format!("/proc/{pid}/task/{tid}")).unwrap_or(true)
}

/// Describes a process. Fields that need more privileges are `None`.
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
        program: program::identify(pid, container::id(&cgroup)),
    };
    // Checked last: if the PID was reused meanwhile, the fields above are of another process.
    if identify(pid)? == key { Ok(info) } else { Err(ProcessError::Gone { pid }) }
}

/// The PID in the innermost PID namespace, if there are several: the last number of `NSpid` in
/// `/proc/PID/status`, proc_pid_status(5). The first is the one in the namespace of this procfs.
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

/// `roots` and their running descendants. A descendant whose parent has exited was adopted by
/// another process and is not found.
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
