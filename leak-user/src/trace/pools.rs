//! From what was read in programs' memory to facts.

use std::collections::HashMap;

use crate::model::pools::{PooledConnection, ReadPool};
use crate::model::{ConnectionId, Event, ProcessKey, WireState};
use crate::sources::drivers::{FoundState, ProcessStates};
use crate::sources::pools::{FoundPool, ProcessPools};

/// Knows which connections the inodes of sockets are.
#[derive(Debug, Default)]
pub(super) struct Pools {
    by_inode: HashMap<u64, ConnectionId>,
}

impl Pools {
    /// Learns the connections' inodes, as the latest inventory has them.
    pub(super) fn set_inodes(&mut self, by_inode: HashMap<u64, ConnectionId>) {
        self.by_inode = by_inode;
    }

    /// The event that a process's pools were read.
    pub(super) fn event(&self, process: ProcessKey, read: ProcessPools) -> Event {
        let ProcessPools { began: at, pools } = read;
        let pools = pools.into_iter().map(|pool| self.named(pool)).collect();
        Event::PoolsRead { process, at, pools }
    }

    /// The event that a process's driver told the states of sessions. What it says of a socket that
    /// is not the connection's own is nothing.
    pub(super) fn states_event(&self, process: ProcessKey, read: ProcessStates) -> Event {
        let ProcessStates { began: at, states } = read;
        let is_its = |one: &FoundState| self.by_inode.get(&one.inode) == Some(&one.id);
        let states = states.into_iter().filter(is_its).map(|one| (one.id, one.state)).collect();
        Event::StatesRead { process, at, states }
    }

    /// The event that the drivers of a process's pools told where sessions stand, as far as
    /// `is_wanted`; `None` when they told nothing.
    pub(super) fn sessions_event(
        &self,
        process: ProcessKey,
        read: &ProcessPools,
        is_wanted: impl Fn(ConnectionId) -> bool,
    ) -> Option<Event> {
        let sessions = read.pools.iter().flat_map(|pool| &pool.sessions);
        let session =
            |(inode, state): &(u64, WireState)| Some((*self.by_inode.get(inode)?, *state));
        let states: Vec<_> =
            sessions.filter_map(session).filter(|(id, _)| is_wanted(*id)).collect();
        (!states.is_empty()).then_some(Event::StatesRead { process, at: read.began, states })
    }

    fn named(&self, pool: FoundPool) -> ReadPool {
        let FoundPool { kind, address, numbers, sockets, sessions: _ } = pool;
        let connection = |(inode, checked_out): (u64, bool)| {
            Some(PooledConnection { id: *self.by_inode.get(&inode)?, checked_out })
        };
        let connections = sockets.into_iter().filter_map(connection).collect();
        ReadPool { kind: kind.to_owned(), number: address, numbers, connections }
    }
}
