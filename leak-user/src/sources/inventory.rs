//! The inventory: every connection that exists now, whether or not its events were seen.
//!
//! It joins the kernel's list of sockets in each network namespace with the processes that hold
//! them.

mod gaps;
pub(super) mod holders;
mod namespaces;
mod netlink;
pub mod sock_diag;
pub(super) mod unix_diag;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::clock;
use crate::model::{ConnectionId, Event, ListedSocket, ProcessKey, Timestamp};
pub use crate::sources::inventory::gaps::UnreadProcesses;
use crate::sources::inventory::holders::holders;
use crate::sources::inventory::namespaces::{Dumped, dump_all};
use crate::sources::inventory::sock_diag::{Activity, DiagError, DiagSocket};
use crate::sources::procfs;
use crate::sources::procfs::ProcessError;

/// Whose connections to list.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Only those that these processes hold; `None` for every process.
    pub pids: Option<HashSet<u32>>,
}

/// Why there is no inventory at all.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// The kernel did not list the sockets of any network namespace.
    #[error(transparent)]
    Diag(#[from] DiagError),
    /// procfs cannot be listed.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

/// The live connections to the traced ports at one moment.
#[derive(Debug)]
pub struct Inventory {
    /// When the first dump began.
    pub began: Timestamp,
    /// The connections.
    pub sockets: Vec<ListedSocket>,
    /// The same by the inodes of their sockets.
    pub by_inode: HashMap<u64, ConnectionId>,
    /// Network namespaces that could not be read.
    pub unread_namespaces: usize,
    /// Why the first of them could not be read, and what to do.
    pub unread_reason: Option<String>,
    /// Processes whose file descriptors could not be read: `held_by` may lack them.
    pub unread_processes: UnreadProcesses,
    /// CPU time of dumping the kernel's list.
    pub listing: Duration,
    /// CPU time of finding the holders of the sockets.
    pub holding: Duration,
}

impl Inventory {
    /// Lists the connections to `ports`: those that processes in `scope` hold, and those in `known`
    /// even if no process holds them.
    ///
    /// This blocks for milliseconds, on a large node for some hundred milliseconds: it reads procfs
    /// for every process in scope. The caller's network namespace does not change: a short-lived
    /// thread enters the others. Namespaces without a process are not found.
    ///
    /// # Errors
    ///
    /// When no namespace could be listed or `/proc` cannot be read. If only some namespaces cannot
    /// be read, they are counted.
    pub fn take(
        ports: &[u16],
        scope: &Scope,
        known: &HashSet<ConnectionId>,
    ) -> Result<Self, InventoryError> {
        let (began, begun) = (clock::now(), clock::thread_cpu_time());
        let everyone = procfs::all()?;
        let Dumped { sockets, unread, reason } =
            dump_all(ports, scope.pids.as_ref(), &everyone, !known.is_empty())?;
        let dumped = clock::thread_cpu_time();
        let held = Held::find(&sockets, scope.pids.as_ref(), known, &everyone)?;
        let sockets: Vec<_> = sockets
            .into_iter()
            .filter(|(socket, _)| {
                scope.pids.is_none()
                    || known.contains(&socket.id)
                    || held.in_scope.contains(&socket.inode)
            })
            .collect();
        let by_inode = sockets.iter().map(|(socket, _)| (socket.inode, socket.id)).collect();
        let sockets = sockets.into_iter().map(|(socket, at)| listed(socket, at, &held)).collect();
        Ok(Self {
            began,
            sockets,
            by_inode,
            unread_namespaces: unread,
            unread_reason: reason,
            unread_processes: held.unreadable,
            listing: dumped.saturating_sub(begun),
            holding: clock::thread_cpu_time().saturating_sub(dumped),
        })
    }

    /// Whether every network namespace could be read.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.unread_namespaces == 0
    }

    /// The event from which the table is corrected.
    #[must_use]
    pub fn into_event(self) -> Event {
        let complete = self.complete();
        Event::Inventory { began: self.began, sockets: self.sockets, complete }
    }
}

/// The holders of the sockets of a dump.
#[derive(Debug, Default)]
struct Held {
    by_inode: HashMap<u64, Vec<ProcessKey>>,
    /// Inodes of the sockets that processes in scope hold.
    in_scope: HashSet<u64>,
    unreadable: UnreadProcesses,
}

impl Held {
    /// Searches the processes in scope first, then their descendants. All processes of the node are
    /// searched only without a scope, or for known connections that left it.
    fn find(
        sockets: &[(DiagSocket, Timestamp)],
        scope: Option<&HashSet<u32>>,
        known: &HashSet<ConnectionId>,
        everyone: &[u32],
    ) -> Result<Self, ProcessError> {
        let inodes = sockets.iter().map(|(socket, _)| socket.inode).filter(|&inode| inode != 0);
        let inodes: HashSet<u64> = inodes.collect();
        let mut held = Self::default();
        let Some(scope) = scope else {
            held.add(&inodes, everyone.iter().copied());
            return Ok(held);
        };
        held.add(&inodes, scope.iter().copied());
        held.in_scope = held.by_inode.keys().copied().collect();
        let wanted: HashSet<u64> = sockets
            .iter()
            .filter(|(socket, _)| {
                known.contains(&socket.id) || held.in_scope.contains(&socket.inode)
            })
            .map(|(socket, _)| socket.inode)
            .filter(|&inode| inode != 0)
            .collect();
        let mut searched = scope.clone();
        if !wanted.is_empty() {
            let family = procfs::with_descendants(scope)?;
            held.add(&wanted, family.difference(scope).copied());
            searched = family;
        }
        let elsewhere: HashSet<u64> =
            wanted.into_iter().filter(|inode| !held.by_inode.contains_key(inode)).collect();
        let others = everyone.iter().copied().filter(|pid| !searched.contains(pid));
        held.add(&elsewhere, others);
        Ok(held)
    }

    fn add(&mut self, inodes: &HashSet<u64>, pids: impl Iterator<Item = u32>) {
        let found = holders(inodes, pids);
        self.unreadable.add(found.unreadable, found.first_unreadable);
        for (inode, mut keys) in found.by_inode {
            self.by_inode.entry(inode).or_default().append(&mut keys);
        }
    }
}

fn listed(socket: DiagSocket, at: Timestamp, held: &Held) -> ListedSocket {
    let DiagSocket { id, inode, endpoints, state, unread_bytes, activity } = socket;
    let Activity { bytes_sent, bytes_received, since_send, since_receive } = activity;
    // During the handshake there is no last transfer yet: take the time of the dump.
    let transfer_time = |since: Option<Duration>| at.before(since.unwrap_or_default());
    let mut held_by = held.by_inode.get(&inode).cloned().unwrap_or_default();
    held_by.sort_unstable();
    ListedSocket {
        id,
        endpoints,
        tcp_state: state,
        unread_bytes,
        bytes_sent,
        bytes_received,
        last_send: transfer_time(since_send),
        last_receive: transfer_time(since_receive),
        held_by,
    }
}

#[cfg(test)]
mod tests;
