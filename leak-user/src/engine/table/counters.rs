//! Taking in the kernel programs' counters.

use crate::engine::table::{ConnectionTable, WentOn};
use crate::model::{ConnectionId, Timestamp, Usage};

impl ConnectionTable {
    /// Learns what the counters of a connection say now.
    pub(super) fn used(&mut self, id: ConnectionId, usage: &Usage, now: Timestamp) {
        if !self.connections.contains_key(&id) {
            // Counters read just before the end, told just after it.
            let stale = self.gone.at(id).is_some_and(|at| usage.opened_at <= at);
            if stale || self.connections.len() >= self.capacity {
                return;
            }
            self.adopt_used(id, usage, now);
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            if let Some(request_at) = usage.request_at
                && usage.requests != connection.requests
            {
                let (from, after) = (connection.silent_since(), connection.last_used_by.as_ref());
                self.pools.paused(&connection.pool, from, request_at, after);
                if let Some(stack) = connection.last_used_by.take() {
                    let (at, pause) = (from, request_at.since(from));
                    self.pools.went_on(&connection.pool, WentOn { id, at, stack, pause });
                }
            }
            if let (Some(sqlstate), None) = (&usage.wire.refused, &connection.wire.refused) {
                self.tallies.refuse(connection.process, sqlstate);
            }
            connection.use_counters(usage);
            connection.last_counted = Some(now);
            let since = connection.counted_since;
            self.regroup(id, &usage.wire, since);
        }
        if let (Some(connection), Some((_, tid)), Some(at)) =
            (self.connections.get(&id), usage.request_by, usage.request_at)
        {
            self.pools.used_by(&connection.pool, tid, at);
        }
    }

    /// Takes in a connection that the kernel programs know and the table does not.
    pub(super) fn adopt_used(&mut self, id: ConnectionId, usage: &Usage, now: Timestamp) {
        let opened_at = (!usage.adopted).then_some(usage.opened_at);
        let counted_since = opened_at.or_else(|| self.missed_since(id));
        // Before the first inventory, one that is older than the trace was not missed.
        self.losses.added += u64::from(counted_since.is_some());
        self.insert(id, usage.opener.process, usage.endpoints, opened_at, counted_since, now);
        self.tallies.name(&usage.opener);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.tid = opened_at.and(Some(usage.opener.tid));
            connection.tcp_state = usage.tcp_state;
            connection.state_changed_at = usage.state_changed_at;
        }
    }

    /// Learns that the counters of these connections are still there, and say what they said.
    pub(super) fn unchanged(&mut self, ids: &[ConnectionId], now: Timestamp) {
        for id in ids {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.last_counted = Some(now);
            }
        }
    }
}
