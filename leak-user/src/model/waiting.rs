//! Where threads and goroutines stand now.

use serde::{Deserialize, Serialize};

use crate::model::{StackId, Timestamp};

/// Threads or goroutines with the same stack that wait for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiters {
    /// How many.
    pub count: u32,
    /// Since when the one that has waited for longest is known to wait.
    pub since: Timestamp,
    /// Their stack.
    pub stack: StackId,
}

/// Where a thread or goroutine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whereabouts {
    /// It has ended.
    Ended,
    /// It waits, with this stack.
    At(StackId),
    /// Nobody knows: it ran when it was looked at, or its stack could not be had.
    Unknown,
}
