//! What is remembered of a group of connections.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::engine::table::history::History;
use crate::model::{ConnectionId, StackId, Timestamp};

/// Most threads of a group whose latest use is remembered; the longest idle are forgotten first.
const MAX_THREADS: usize = 4096;

/// Most uses of a group's connections whose code is remembered.
const MAX_WENT_ON: usize = 256;

/// Most stacks after which pauses are told apart; the rest count as unknown.
const MAX_PAUSES: usize = 256;

/// Most ends of a group's connections that are remembered.
const MAX_RETIRED: usize = 16;

/// A use of a connection that another use followed.
#[derive(Clone, Debug)]
pub struct WentOn {
    /// The connection.
    pub id: ConnectionId,
    /// When it was used.
    pub at: Timestamp,
    /// The code that used it.
    pub stack: StackId,
    /// How long it rested then, as far as is known.
    pub pause: Duration,
}

/// One identity's part of what a process has to a server.
#[derive(Debug, Default)]
pub(super) struct Member {
    pub(super) history: History,
    pub(super) last_opened: Option<Timestamp>,
    /// The longest pause after each stack's uses that ended although the group had grown.
    pub(super) pauses: BTreeMap<Option<StackId>, Duration>,
    /// When each thread last began a request.
    pub(super) threads: BTreeMap<u32, Timestamp>,
    /// Uses that were followed by others of the same connection, and after which code, the latest
    /// last.
    pub(super) went_on: VecDeque<WentOn>,
    /// How old connections were when they ended, the latest last.
    pub(super) retired: VecDeque<Duration>,
}

impl Member {
    pub(super) fn used_by(&mut self, tid: u32, at: Timestamp) {
        if self.threads.len() >= MAX_THREADS && !self.threads.contains_key(&tid) {
            let mut moments: Vec<_> = self.threads.values().copied().collect();
            moments.sort_unstable();
            let median = moments.get(MAX_THREADS / 2).copied().unwrap_or_default();
            self.threads.retain(|_, at| *at >= median);
        }
        let latest = self.threads.entry(tid).or_default();
        *latest = at.max(*latest);
    }

    pub(super) fn paused(&mut self, after: Option<&StackId>, pause: Duration) {
        let mut after = after.cloned();
        if self.pauses.len() >= MAX_PAUSES && !self.pauses.contains_key(&after) {
            after = None;
        }
        let longest = self.pauses.entry(after).or_default();
        *longest = pause.max(*longest);
    }

    pub(super) fn retired(&mut self, age: Duration) {
        if self.retired.len() >= MAX_RETIRED {
            self.retired.pop_front();
        }
        self.retired.push_back(age);
    }

    pub(super) fn went_on(&mut self, use_: WentOn) {
        if self.went_on.len() >= MAX_WENT_ON {
            self.went_on.pop_front();
        }
        self.went_on.push_back(use_);
    }
}
