//! Applying the kernel programs' counters.

use crate::engine::table::{ConnectionTable, Newcomer, Observer, Request};
use crate::model::{ConnectionId, Timestamp, Usage};

impl ConnectionTable {
    /// Learns what the counters of a connection say now.
    pub(super) fn used(
        &mut self,
        id: ConnectionId,
        usage: &Usage,
        now: Timestamp,
        observer: &mut dyn Observer,
    ) {
        if !self.connections.contains_key(&id) {
            // Counters read just before the end, told just after it.
            let stale = self.gone.at(id).is_some_and(|at| usage.opened_at <= at);
            if stale || self.connections.len() >= self.capacity {
                return;
            }
            self.adopt_used(id, usage, now, observer);
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.use_state(usage);
            if usage.requests != connection.requests.count {
                let request = Request {
                    id,
                    pool: &connection.account.pool,
                    at: usage.request_at,
                    silent_since: connection.silent_since(),
                    after: connection.callers.last_used_by.as_ref(),
                    left: connection.wire.state,
                };
                observer.request_began(request, &self.pools);
            }
            if let Some(after) = connection.answered_after(usage) {
                observer.answered(&connection.account.pool, after, &self.pools);
            }
            if let (Some(sqlstate), None) = (&usage.wire.refused, &connection.wire.refused) {
                self.tallies.refuse(connection.process, sqlstate);
                let (server, at) = (connection.endpoints.remote, usage.last_receive.unwrap_or(now));
                self.refusals.note(server, connection.process, &usage.wire, at);
            }
            connection.use_counters(usage);
            let is_left = usage.closed_at_exit && !connection.wire.cancels;
            if is_left && !std::mem::replace(&mut connection.account.left_open, true) {
                self.unclosed.add(connection);
            }
            connection.account.last_counted = Some(now);
            let since = connection.account.counted_since;
            self.assign_pool(id, &usage.wire, since, observer);
        }
        if let (Some(connection), Some((_, tid)), Some(at)) =
            (self.connections.get(&id), usage.request_by, usage.request_at)
        {
            observer.used_by(&connection.account.pool, tid, at, &self.pools);
        }
    }

    /// Takes in a connection that the kernel programs know and the table does not.
    pub(super) fn adopt_used(
        &mut self,
        id: ConnectionId,
        usage: &Usage,
        now: Timestamp,
        observer: &mut dyn Observer,
    ) {
        let opened_at = (!usage.adopted).then_some(usage.opened_at);
        let counted_since = opened_at.or_else(|| self.missed_since(id));
        // Before the first inventory, one that is older than the trace was not missed.
        self.losses.added += u64::from(counted_since.is_some());
        let newcomer = Newcomer { process: usage.opener.process, opened_at, counted_since };
        self.insert(id, newcomer, usage.endpoints, now, observer);
        self.tallies.name(&usage.opener);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.tid = opened_at.and(Some(usage.opener.tid));
            connection.tcp.set(usage.tcp_state, usage.state_changed_at);
        }
    }

    /// Learns that the counters of these connections are still there, and say what they said.
    pub(super) fn unchanged(&mut self, ids: &[ConnectionId], now: Timestamp) {
        for id in ids {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.account.last_counted = Some(now);
            }
        }
    }
}
