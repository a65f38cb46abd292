//! From pools that were read in programs' memory to facts.

use std::collections::HashMap;

use crate::model::pools::{PooledConnection, ReadPool};
use crate::model::{ConnectionId, Event, ProcessKey};
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

    fn named(&self, pool: FoundPool) -> ReadPool {
        let FoundPool { kind, address, numbers, sockets } = pool;
        let connection = |(inode, checked_out): (u64, bool)| {
            Some(PooledConnection { id: *self.by_inode.get(&inode)?, checked_out })
        };
        let connections = sockets.into_iter().filter_map(connection).collect();
        ReadPool { kind: kind.to_owned(), number: address, numbers, connections }
    }
}
