//! Setting the table right by what sock_diag lists.

use std::collections::HashSet;

use crate::event::{ConnectionId, ListedSocket, TcpState, Timestamp};
use crate::table::ConnectionTable;

impl ConnectionTable {
    /// Compares the table with a dump that began at `began`: adds what is missing, corrects what is
    /// known, and, when the dump is `complete`, drops what it does not list.
    pub(super) fn reconcile(
        &mut self,
        began: Timestamp,
        sockets: &[ListedSocket],
        complete: bool,
        now: Timestamp,
    ) {
        self.losses.untracked = 0;
        for socket in sockets {
            if let Some(connection) = self.connections.get_mut(&socket.id) {
                let corrected = connection.use_listing(socket, began);
                self.losses.corrected += u64::from(corrected);
            } else {
                self.adopt_listed(socket, began, now);
            }
        }
        if complete {
            self.drop_unlisted(began, sockets, now);
        }
        self.last_inventory = Some(began);
        self.pools.prune(now);
    }

    fn adopt_listed(&mut self, socket: &ListedSocket, began: Timestamp, now: Timestamp) {
        let ended_since = self.gone.at(socket.id).is_some_and(|at| at >= began);
        // Without a holder it cannot be laid at anyone's door: its process has closed it, or died,
        // or it is on its way from one process to another and will be listed again.
        let Some(&process) = socket.held_by.first() else { return };
        if ended_since
            || socket.tcp_state.closed_by_process()
            || socket.tcp_state == TcpState::Close
        {
            return;
        }
        if self.connections.len() >= self.capacity {
            self.losses.untracked += 1;
            return;
        }
        // What the previous inventory did not list was opened after it.
        let counted_since = self.last_inventory;
        self.losses.added += u64::from(counted_since.is_some());
        self.insert(socket.id, process, socket.endpoints, None, counted_since, now);
        if let Some(connection) = self.connections.get_mut(&socket.id) {
            connection.tcp_state = socket.tcp_state;
            connection.state_changed_at = began;
            connection.use_listing(socket, began);
        }
    }

    fn drop_unlisted(&mut self, began: Timestamp, sockets: &[ListedSocket], now: Timestamp) {
        let listed: HashSet<ConnectionId> = sockets.iter().map(|socket| socket.id).collect();
        let dropped: Vec<ConnectionId> = self
            .connections
            .values()
            .filter(|known| {
                known.opened_at.unwrap_or(known.first_seen) < began && !listed.contains(&known.id)
            })
            .map(|known| known.id)
            .collect();
        for id in dropped {
            self.losses.closed += 1;
            self.remove(id, began, false, now);
        }
    }
}
