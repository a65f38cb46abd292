//! Correcting the table by what sock_diag lists.

use std::collections::HashSet;
use std::time::Duration;

use crate::engine::table::{ConnectionTable, End, Newcomer, Observer};
use crate::model::{ConnectionId, ListedSocket, TcpState, Timestamp};

/// Complete lists in a row without a connection that outweigh counters which the kernel programs
/// still keep of it.
const LISTS_AGAINST_COUNTERS: u32 = 2;

/// How long a server counts as one that has no slot left, after the latest connection that it
/// refused.
const REFUSED_FOR: Duration = Duration::from_secs(300);

impl ConnectionTable {
    /// Compares the table with a dump that began at `began`: adds what is missing, corrects what is
    /// known, and drops what is gone. Of what has no counters only a `complete` dump tells that.
    pub(super) fn reconcile(
        &mut self,
        began: Timestamp,
        sockets: &[ListedSocket],
        complete: bool,
        now: Timestamp,
        observer: &mut dyn Observer,
    ) {
        self.losses.untracked = 0;
        for socket in sockets {
            if let Some(connection) = self.connections.get_mut(&socket.id) {
                let corrected = connection.use_listing(socket, began);
                self.losses.corrected += u64::from(corrected);
            } else {
                self.adopt_listed(socket, began, now, observer);
            }
        }
        self.drop_unlisted(began, sockets, complete, now, observer);
        if complete && !self.untracked_at_first.is_empty() {
            let listed: HashSet<ConnectionId> = sockets.iter().map(|socket| socket.id).collect();
            self.untracked_at_first.retain(|id| listed.contains(id));
        }
        self.last_inventory = Some(began);
        self.pools.prune(now, observer);
        self.refusals.forget_before(now.before(REFUSED_FOR));
        self.program_pools.prune(self.connections.values().map(Box::as_ref));
    }

    fn adopt_listed(
        &mut self,
        socket: &ListedSocket,
        began: Timestamp,
        now: Timestamp,
        observer: &mut dyn Observer,
    ) {
        let ended_since = self.gone.at(socket.id).is_some_and(|at| at >= began);
        // Without a holder nobody can be blamed for it: its process has closed it or died, or is
        // passing it to another one, and then it will be listed again.
        let Some(&process) = socket.held_by.first() else { return };
        if ended_since
            || socket.tcp_state.closed_by_process()
            || socket.tcp_state == TcpState::Close
        {
            return;
        }
        if self.connections.len() >= self.capacity {
            self.losses.untracked += 1;
            if self.last_inventory.is_none() {
                self.untracked_at_first.insert(socket.id);
            }
            return;
        }
        let counted_since = self.missed_since(socket.id);
        self.losses.added += u64::from(counted_since.is_some());
        let newcomer = Newcomer { process, opened_at: None, counted_since };
        self.insert(socket.id, newcomer, socket.endpoints, now, observer);
        if let Some(connection) = self.connections.get_mut(&socket.id) {
            connection.tcp.set(socket.tcp_state, began);
            connection.use_listing(socket, began);
        }
    }

    /// When the last inventory was that could not list a connection found only now, because it was
    /// opened after it; `None` when it is older than the trace.
    pub(super) fn missed_since(&self, id: ConnectionId) -> Option<Timestamp> {
        self.last_inventory.filter(|_| !self.untracked_at_first.contains(&id))
    }

    /// Drops connections that neither the list nor the kernel programs know any more.
    ///
    /// The programs' counters are read after the list has begun, so whoever has counters since then
    /// lives, even if the dump has missed it; and whoever had counters and has none now is gone,
    /// even where the list proves nothing. Only a second complete list is proof against counters:
    /// the programs have missed the end.
    fn drop_unlisted(
        &mut self,
        began: Timestamp,
        sockets: &[ListedSocket],
        complete: bool,
        now: Timestamp,
        observer: &mut dyn Observer,
    ) {
        let listed: HashSet<ConnectionId> = sockets.iter().map(|socket| socket.id).collect();
        let mut dropped = Vec::new();
        for known in self.connections.values_mut() {
            if known.opened_at.unwrap_or(known.first_seen) >= began || listed.contains(&known.id) {
                continue;
            }
            known.account.unlisted += u32::from(complete);
            let is_gone = match known.account.last_counted {
                None => complete,
                Some(counted) if counted < began => true,
                Some(_) => known.account.unlisted >= LISTS_AGAINST_COUNTERS,
            };
            if is_gone {
                dropped.push(known.id);
            }
        }
        for id in dropped {
            self.losses.closed += 1;
            self.remove(id, began, End::Closed, now, observer);
        }
    }
}
