//! What a program's own pool of connections says of itself.

use serde::{Deserialize, Serialize};

use crate::model::ConnectionId;

/// A pool as it was at one moment, by the program's own bookkeeping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadPool {
    /// Whose pool it is: `database/sql`.
    pub kind: String,
    /// Tells it from other pools of the process, as long as it exists.
    pub number: u64,
    /// Its own numbers; `None` when it never stood still while they were read.
    pub numbers: Option<PoolNumbers>,
    /// Those of its connections of which it is known where they are.
    pub connections: Vec<PooledConnection>,
}

/// A pool's own numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolNumbers {
    /// Connections that are open or being opened.
    pub open: u64,
    /// Those of them that wait to be used.
    pub idle: u64,
    /// Most connections that it opens; `None`: as many as are wanted.
    pub max_open: Option<u64>,
    /// Callers who wait for a connection.
    pub waiting: Option<u64>,
    /// Callers who have had to wait so far.
    pub wait_count: Option<u64>,
    /// How long they have waited so far, in nanoseconds; those who still wait are not counted in.
    pub wait_nanoseconds: Option<u64>,
}

impl PoolNumbers {
    /// Connections that are not idle.
    #[must_use]
    pub fn in_use(&self) -> u64 {
        self.open.saturating_sub(self.idle)
    }
}

/// A connection of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PooledConnection {
    /// The connection.
    pub id: ConnectionId,
    /// Somebody has taken it and not given it back.
    pub checked_out: bool,
}
