//! What connections there are, whoever opened them and whether or not anything was missed: the
//! kernel's own list in every network namespace, and who holds each socket.

mod namespaces;
pub mod sock_diag;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::clock;
use crate::model::{ConnectionId, Event, ListedSocket, ProcessKey, Timestamp};
use crate::sources::inventory::sock_diag::{Activity, DiagError, DiagSocket};
use crate::sources::procfs;
use crate::sources::procfs::ProcessError;
use crate::sources::procfs::holders::holders;
use namespaces::Dumped;

/// Whose connections are wanted.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Only what these processes hold; `None` for every process.
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

/// The live connections to the traced ports, as they were at one moment.
#[derive(Debug)]
pub struct Inventory {
    /// When the first dump began.
    pub began: Timestamp,
    /// The connections.
    pub sockets: Vec<ListedSocket>,
    /// Network namespaces that could not be read.
    pub unread_namespaces: usize,
    /// Why the first of them could not be read, and what to do about it.
    pub unread_reason: Option<String>,
    /// Processes whose file descriptors could not be read: `held_by` may lack them.
    pub unread_processes: usize,
    /// CPU time that the kernel's list and its reading took.
    pub listing: Duration,
    /// CPU time that it took to find out who holds the sockets.
    pub holding: Duration,
}

impl Inventory {
    /// Lists the connections to `ports`: those that processes of `scope` hold, and those in
    /// `known` whoever holds them, be it nobody.
    ///
    /// It blocks for milliseconds to, on a large node, some hundred of them: procfs is read for
    /// every process in scope. The caller's network namespace never changes, since other ones are
    /// entered by a thread that ends with the call. A namespace in which no process lives is not
    /// found.
    ///
    /// # Errors
    ///
    /// When no namespace could be listed or `/proc` cannot be read. A namespace that cannot be read
    /// among others is counted instead.
    pub fn take(
        ports: &[u16],
        scope: &Scope,
        known: &HashSet<ConnectionId>,
    ) -> Result<Self, InventoryError> {
        let (began, begun) = (clock::now(), clock::thread_cpu_time());
        let everyone = procfs::all()?;
        let Dumped { sockets, unread, reason } =
            namespaces::dump_all(ports, scope.pids.as_ref(), &everyone, !known.is_empty())?;
        let dumped = clock::thread_cpu_time();
        let held = Held::find(&sockets, scope.pids.as_ref(), known, &everyone)?;
        let sockets = sockets
            .into_iter()
            .filter(|(socket, _)| {
                scope.pids.is_none()
                    || known.contains(&socket.id)
                    || held.in_scope.contains(&socket.inode)
            })
            .map(|(socket, at)| listed(socket, at, &held))
            .collect();
        Ok(Self {
            began,
            sockets,
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

    /// The event that corrects the table.
    #[must_use]
    pub fn into_event(self) -> Event {
        let complete = self.complete();
        Event::Inventory { began: self.began, sockets: self.sockets, complete }
    }
}

/// Who holds the sockets of a dump.
#[derive(Debug, Default)]
struct Held {
    by_inode: HashMap<u64, Vec<ProcessKey>>,
    /// Inodes that processes in scope hold.
    in_scope: HashSet<u64>,
    unreadable: usize,
}

impl Held {
    /// Looks where holders are most likely first: every descriptor of every process of the node is
    /// read only when there is no scope, or for known connections that have left it.
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
        let strayed: HashSet<u64> =
            wanted.into_iter().filter(|inode| !held.by_inode.contains_key(inode)).collect();
        let others = everyone.iter().copied().filter(|pid| !searched.contains(pid));
        held.add(&strayed, others);
        Ok(held)
    }

    fn add(&mut self, inodes: &HashSet<u64>, pids: impl Iterator<Item = u32>) {
        let found = holders(inodes, pids);
        self.unreadable += found.unreadable;
        for (inode, mut keys) in found.by_inode {
            self.by_inode.entry(inode).or_default().append(&mut keys);
        }
    }
}

fn listed(socket: DiagSocket, at: Timestamp, held: &Held) -> ListedSocket {
    let DiagSocket { id, inode, endpoints, state, unread_bytes, activity } = socket;
    let Activity { bytes_sent, bytes_received, since_send, since_receive } = activity;
    // Before the handshake is done there is no silence: the dump's own time stands for it.
    let moment = |since: Option<Duration>| at.before(since.unwrap_or_default());
    let mut held_by = held.by_inode.get(&inode).cloned().unwrap_or_default();
    held_by.sort_unstable();
    ListedSocket {
        id,
        endpoints,
        tcp_state: state,
        unread_bytes,
        bytes_sent,
        bytes_received,
        last_send: moment(since_send),
        last_receive: moment(since_receive),
        held_by,
    }
}

#[cfg(test)]
mod tests;
