//! What programs' own pools say, as read from their memory.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::engine::table::{Connection, Place};
use crate::model::pools::ReadPool;
use crate::model::{ConnectionId, ProcessKey, Timestamp};

/// Most processes whose pools are kept.
const MAX_PROCESSES: usize = 1024;

/// The pools of all processes that have some, as they were read last.
#[derive(Debug, Default)]
pub(super) struct ProgramPools(BTreeMap<ProcessKey, Reading>);

#[derive(Debug)]
struct Reading {
    at: Timestamp,
    pools: Vec<ReadPool>,
}

/// A pool of a process, and when it was read.
#[derive(Clone, Copy, Debug)]
pub struct ProgramPool<'a> {
    /// The process.
    pub process: ProcessKey,
    /// When reading began.
    pub at: Timestamp,
    /// What was read.
    pub pool: &'a ReadPool,
}

impl ProgramPools {
    /// Keeps what was read of a process, and tells each of `connections` where it is.
    pub(super) fn learn(
        &mut self,
        process: ProcessKey,
        at: Timestamp,
        pools: &[ReadPool],
        connections: &mut BTreeMap<ConnectionId, Box<Connection>>,
    ) {
        let places: HashMap<ConnectionId, Place> = pools
            .iter()
            .flat_map(|pool| &pool.connections)
            .map(|one| (one.id, Place { at, checked_out: one.checked_out, pools: pools.len() }))
            .collect();
        let its = connections.values_mut().filter(|connection| connection.process == process);
        for connection in its {
            connection.place = places.get(&connection.id).copied();
        }
        if pools.is_empty() {
            self.0.remove(&process);
        } else if self.0.len() < MAX_PROCESSES || self.0.contains_key(&process) {
            self.0.insert(process, Reading { at, pools: pools.to_vec() });
        }
    }

    /// Forgets processes that have no connection any more.
    pub(super) fn prune<'a>(&mut self, connections: impl Iterator<Item = &'a Connection>) {
        if self.0.is_empty() {
            return;
        }
        let in_use: HashSet<_> = connections.map(|connection| connection.process).collect();
        self.0.retain(|process, _| in_use.contains(process));
    }

    pub(super) fn all(&self) -> impl Iterator<Item = ProgramPool<'_>> {
        self.0.iter().flat_map(|(&process, Reading { at, pools })| {
            pools.iter().map(move |pool| ProgramPool { process, at: *at, pool })
        })
    }
}
