//! Finds the network namespaces of processes and lists the sockets in each.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::clock;
use crate::model::Timestamp;
use crate::sources::inventory::sock_diag;
use crate::sources::inventory::sock_diag::{DiagError, DiagSocket};
use crate::sources::procfs::is_gone;

/// The sockets of all namespaces that could be read, each with the time of its dump.
#[derive(Debug, Default)]
pub(super) struct Dumped {
    pub(super) sockets: Vec<(DiagSocket, Timestamp)>,
    /// Namespaces that could not be read.
    pub(super) unread: usize,
    /// Why, of the first of them.
    pub(super) reason: Option<String>,
}

/// Device and inode of a namespace's file in nsfs.
type NamespaceKey = (u64, u64);

/// Lists the sockets in the namespaces of the processes in scope.
///
/// With `search_widely`, if a process in scope has exited, the namespaces of all processes are
/// listed: another process may have taken over its sockets.
///
/// # Errors
///
/// When no namespace could be listed, with the reason for the first.
pub(super) fn dump_all(
    ports: &[u16],
    scope: Option<&HashSet<u32>>,
    everyone: &[u32],
    search_widely: bool,
) -> Result<Dumped, DiagError> {
    let mut found = Found::among(scope.unwrap_or(&HashSet::new()).iter().copied());
    if scope.is_none() || (search_widely && found.gone > 0) {
        found = Found::among(everyone.iter().copied());
    }
    let mut dumped = Dumped { unread: found.unreadable, reason: found.reason, ..Dumped::default() };
    // This process's own namespace needs no privileges. It is listed unless it is out of scope.
    let own = namespace_key(OWN).ok();
    let own_members = own.and_then(|own| found.members.remove(&own));
    let mut failure = None;
    let mut listed = 0;
    if own_members.is_some() || scope.is_none() {
        match dump_here(ports) {
            Ok(sockets) => {
                dumped.sockets = sockets;
                listed += 1;
            }
            Err(error) => {
                dumped.miss(error.to_string());
                failure = Some(error);
            }
        }
    }
    for outcome in dump_elsewhere(ports, &found.members) {
        match outcome {
            Ok(mut sockets) => {
                dumped.sockets.append(&mut sockets);
                listed += 1;
            }
            Err(error) => {
                dumped.miss(error.to_string());
                if let ElsewhereError::Diag(error) = error {
                    failure.get_or_insert(error);
                }
            }
        }
    }
    match failure {
        Some(error) if listed == 0 => Err(error),
        _ => Ok(dumped),
    }
}

impl Dumped {
    fn miss(&mut self, reason: String) {
        self.unread += 1;
        self.reason.get_or_insert(reason);
    }
}

/// The namespaces of some processes.
#[derive(Debug, Default)]
struct Found {
    members: HashMap<NamespaceKey, Vec<u32>>,
    /// Processes that no longer exist.
    gone: usize,
    /// Namespaces that cannot be opened through any of their processes.
    unreadable: usize,
    reason: Option<String>,
}

impl Found {
    fn among(pids: impl Iterator<Item = u32>) -> Self {
        let mut found = Self::default();
        let mut closed = Vec::new();
        for pid in pids {
            match namespace_key(&path(pid)) {
                Ok(key) => found.members.entry(key).or_default().push(pid),
                Err(error) if is_gone(&error) => found.gone += 1,
                Err(error) => closed.push((pid, error)),
            }
        }
        found.sort_out(closed);
        found
    }

    /// Sorts out the processes whose namespace may not be opened. Some are closed even to root, but
    /// nearly always share a namespace with others that can be opened.
    fn sort_out(&mut self, closed: Vec<(u32, io::Error)>) {
        if closed.is_empty() {
            return;
        }
        let mut known: HashSet<u64> = self
            .members
            .values()
            .filter_map(|pids| pids.first())
            .filter_map(|pid| table(&pid.to_string()))
            .collect();
        let own = namespace_key(OWN).ok().zip(table("thread-self"));
        for (pid, error) in closed {
            let table = table(&pid.to_string());
            if let (Some((own, own_table)), Some(table)) = (own, table)
                && own_table == table
            {
                self.members.entry(own).or_default().push(pid);
            } else if table.is_none_or(|table| known.insert(table)) {
                self.unreadable += 1;
                self.reason.get_or_insert_with(|| {
                    format!(
                        "cannot open the network namespace of process {pid}: {error}; run as root \
                         or with CAP_SYS_PTRACE"
                    )
                });
            }
        }
    }
}

/// The namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";

fn path(pid: u32) -> String {
    format!("/proc/{pid}/ns/net")
}

fn namespace_key(path: &str) -> io::Result<NamespaceKey> {
    std::fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Identifies a namespace without opening it: procfs has a `net/tcp` for each, which everyone may
/// stat.
fn table(process: &str) -> Option<u64> {
    std::fs::metadata(format!("/proc/{process}/net/tcp")).ok().map(|metadata| metadata.ino())
}

fn dump_here(ports: &[u16]) -> Result<Vec<(DiagSocket, Timestamp)>, DiagError> {
    // Read before the dump: a time that is slightly too early never looks like a newer use.
    let at = clock::now();
    Ok(sock_diag::dump(ports)?.into_iter().map(|socket| (socket, at)).collect())
}

/// Why another network namespace could not be read.
#[derive(Debug, thiserror::Error)]
enum ElsewhereError {
    #[error("cannot start a thread to enter other network namespaces: {0}")]
    Thread(io::Error),
    #[error("the thread that enters other network namespaces panicked; please report this")]
    Stopped,
    #[error("the last process of a network namespace exited before its connections were listed")]
    Vanished,
    #[error(
        "cannot enter the network namespace of process {pid}: {source}; run as root or with \
         CAP_SYS_ADMIN and CAP_SYS_PTRACE"
    )]
    Refused { pid: u32, source: io::Error },
    #[error(transparent)]
    Diag(#[from] DiagError),
}

type DumpResult = Result<Vec<(DiagSocket, Timestamp)>, ElsewhereError>;

/// Enters the namespaces one after the other, on a thread that exists only for this.
fn dump_elsewhere(ports: &[u16], members: &HashMap<NamespaceKey, Vec<u32>>) -> Vec<DumpResult> {
    if members.is_empty() {
        return Vec::new();
    }
    let enter_all =
        || members.iter().map(|(&key, pids)| dump_inside(ports, key, pids)).collect::<Vec<_>>();
    let lost = |error: ElsewhereError| {
        let others = (1..members.len()).map(|_| Err(ElsewhereError::Stopped));
        std::iter::once(Err(error)).chain(others).collect()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("namespaces".to_owned())
            .spawn_scoped(scope, enter_all);
        match thread {
            Ok(thread) => thread.join().unwrap_or_else(|_| lost(ElsewhereError::Stopped)),
            Err(error) => lost(ElsewhereError::Thread(error)),
        }
    })
}

/// Moves the calling thread into the namespace, through the first process that still runs.
fn dump_inside(ports: &[u16], key: NamespaceKey, pids: &[u32]) -> DumpResult {
    for &pid in pids {
        let refused = |source| ElsewhereError::Refused { pid, source };
        let file = match File::open(path(pid)) {
            Err(error) if is_gone(&error) => continue,
            file => file.map_err(refused)?,
        };
        let metadata = file.metadata().map_err(refused)?;
        // The process may have changed its namespace, or its PID may have been reused.
        if (metadata.dev(), metadata.ino()) != key {
            continue;
        }
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| refused(error.into()))?;
        return Ok(dump_here(ports)?);
    }
    Err(ElsewhereError::Vanished)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_processes_are_told_apart_by_their_tables() {
        let closed = |pid| (pid, io::Error::from_raw_os_error(libc::EACCES));
        let mut found = Found::default();
        found.sort_out(vec![closed(std::process::id())]);
        let own = namespace_key(OWN).unwrap();
        assert_eq!(found.members, HashMap::from([(own, vec![std::process::id()])]));
        assert_eq!((found.unreadable, &found.reason), (0, &None));
        // Nothing is known about this process.
        found.sort_out(vec![closed(u32::MAX)]);
        assert_eq!(found.unreadable, 1);
        assert!(found.reason.unwrap().contains("4294967295"));
    }

    #[test]
    fn namespaces_that_vanish_or_change_are_misses() {
        let nowhere = (u64::MAX, u64::MAX);
        let me = std::process::id();
        let members = HashMap::from([(nowhere, vec![me, u32::MAX])]);
        let outcomes = dump_elsewhere(&[1], &members);
        assert!(matches!(outcomes.as_slice(), [Err(ElsewhereError::Vanished)]), "{outcomes:?}");
    }
}
