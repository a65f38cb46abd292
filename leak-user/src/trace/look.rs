//! A look at the threads of a process.

use std::time::Duration;

use leak_stacks::ThreadsSeen;

use crate::engine::fate::User;
use crate::model::{ConnectionId, Timestamp};

/// What to look for in a process.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// Everybody who waits for a connection.
    pub(super) waiters: bool,
    /// Those who began these requests.
    pub(super) users: Vec<(ConnectionId, u64, User)>,
}

/// What a look has shown.
#[derive(Debug)]
pub(super) struct LookedAt {
    pub(super) seen: ThreadsSeen,
    pub(super) at: Timestamp,
    /// CPU time that it took.
    pub(super) took: Duration,
}
