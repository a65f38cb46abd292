//! Which threads are looked at, and what is seen of them.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::process::blocked::Blocked;
use crate::stack::Stack;
use crate::time::Timestamp;

/// Most threads of one process that are kept in mind without being looked at.
const MAX_SEEN: usize = 64 << 10;

/// A thread of the system's, or a goroutine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ThreadId {
    /// A thread, by the kernel's number.
    System(u32),
    /// A goroutine, by Go's number.
    Goroutine(u64),
}

/// Which threads of a process to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedThreads {
    /// These, of which it is also told when they have ended.
    pub these: Vec<ThreadId>,
    /// All others that there are, too: in a program that is written in Go, its goroutines.
    pub all: bool,
}

/// A thread that is blocked in a system call, or a goroutine that is parked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockedThread {
    /// Which one.
    pub id: ThreadId,
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
    /// Those of [`WantedThreads::these`] that have ended.
    pub ended: Vec<ThreadId>,
    /// There were more than could be looked at.
    pub is_cut: bool,
}

/// The threads that were seen blocked at the latest look.
#[derive(Debug, Default)]
pub(crate) struct SeenThreads(HashMap<ThreadId, Seen>);

/// A thread as it was seen.
#[derive(Debug)]
pub(crate) struct Seen {
    /// What stays the same as long as it does not run.
    pub(crate) as_it_was: Standstill,
    pub(crate) stack: Arc<Stack>,
    pub(crate) since: Timestamp,
}

/// Two that are equal are of a thread that has not run in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standstill {
    /// In a system call.
    Blocked(Blocked),
    /// A goroutine, by a hash of its registers and its whole stack: whoever parks leaves times and
    /// channels there, which are new each time.
    Parked(u64),
}

impl SeenThreads {
    /// What is known of a thread, unless it has run since.
    pub(crate) fn still(&mut self, id: ThreadId, as_it_is: &Standstill) -> Option<Seen> {
        self.0.remove(&id).filter(|seen| seen.as_it_was == *as_it_is)
    }

    /// Keeps what was seen.
    pub(crate) fn keep(&mut self, id: ThreadId, seen: Seen) {
        self.0.insert(id, seen);
    }

    /// Adds what is known of threads that were not looked at, unless that is too much: some of them
    /// have ended.
    pub(crate) fn add(&mut self, former: Self) {
        if former.0.len() > MAX_SEEN {
            return;
        }
        for (id, seen) in former.0 {
            self.0.entry(id).or_insert(seen);
        }
    }
}
