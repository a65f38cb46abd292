//! Which threads are looked at, and what is seen of them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::process::blocked::Blocked;
use crate::stack::Stack;
use crate::time::Timestamp;

/// Which threads of a process to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WantedThreads {
    /// All that there are.
    All,
    /// These.
    These(Vec<u32>),
}

/// A thread that is blocked in a system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockedThread {
    /// The thread.
    pub tid: u32,
    /// Its stack.
    pub stack: Arc<Stack>,
    /// Since when it is known not to have run: it was seen there then.
    pub since: Timestamp,
}

/// What a look at a process's threads has shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThreadsSeen {
    /// Those that are blocked, as far as their stack could be had.
    pub blocked: Vec<BlockedThread>,
    /// Those of the wanted ones that have ended.
    pub ended: Vec<u32>,
    /// There were more than could be looked at.
    pub is_cut: bool,
}

/// The threads that were seen blocked at the latest look.
#[derive(Debug, Default)]
pub(crate) struct SeenThreads(pub(crate) HashMap<u32, Seen>);

#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) blocked: Blocked,
    pub(crate) stack: Arc<Stack>,
    pub(crate) since: Timestamp,
}
