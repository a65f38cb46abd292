//! What is remembered of one pool.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::model::{ConnectionId, StackId, Timestamp, WireState};

/// Most threads whose latest use is remembered; the longest idle are forgotten first.
const MAX_THREADS: usize = 4096;

/// Most uses whose code is remembered.
const MAX_REUSES: usize = 256;

/// Most stacks with pauses of their own; beyond this limit pauses count as after an unknown stack.
const MAX_PAUSES: usize = 256;

/// Most stacks after whose uses connections were not kept; the longest ago are forgotten first.
const MAX_LET_GO: usize = 256;

/// Most ends that are remembered.
const MAX_RETIRED: usize = 16;

/// A use of a connection that another use followed.
#[derive(Clone, Debug)]
pub(in crate::engine::detect) struct ReusedAfter {
    /// The connection.
    pub(in crate::engine::detect) id: ConnectionId,
    /// When it was used.
    pub(in crate::engine::detect) at: Timestamp,
    /// The code that used it.
    pub(in crate::engine::detect) stack: StackId,
    /// How long the connection then rested; 0 when that is unknown.
    pub(in crate::engine::detect) pause: Duration,
    /// Where it left the dialogue.
    pub(in crate::engine::detect) left: WireState,
}

/// The past of a pool's connections. Connections whose startup message was not seen have a memory
/// of their own.
#[derive(Debug, Default)]
pub(super) struct PoolMemory {
    /// The longest pause after each stack's uses that ended although the pool had grown.
    pauses: BTreeMap<Option<StackId>, Duration>,
    /// When each thread last began a request.
    threads: BTreeMap<u32, Timestamp>,
    /// Uses that were followed by others of the same connection, the latest last.
    reused_after: VecDeque<ReusedAfter>,
    /// The longest time that a request took to be answered.
    longest_wait: Duration,
    /// How old connections were when they ended, the latest last.
    retired: VecDeque<Duration>,
    /// The latest use by each stack after which a connection was not kept.
    let_go: BTreeMap<StackId, Timestamp>,
}

impl PoolMemory {
    pub(super) fn pauses(&self) -> impl Iterator<Item = (Option<&StackId>, Duration)> {
        self.pauses.iter().map(|(after, &pause)| (after.as_ref(), pause))
    }

    pub(super) fn thread_seen(&self, tid: u32) -> Option<Timestamp> {
        self.threads.get(&tid).copied()
    }

    pub(super) fn reused_after(&self) -> impl Iterator<Item = &ReusedAfter> {
        self.reused_after.iter()
    }

    pub(super) fn retired(&self) -> impl Iterator<Item = Duration> {
        self.retired.iter().copied()
    }

    pub(super) fn let_go(&self) -> impl Iterator<Item = (&StackId, Timestamp)> {
        self.let_go.iter().map(|(stack, &at)| (stack, at))
    }

    pub(super) fn stacks(&self) -> impl Iterator<Item = &StackId> {
        let reused = self.reused_after.iter().map(|one| &one.stack);
        reused.chain(self.pauses.keys().flatten()).chain(self.let_go.keys())
    }

    pub(super) fn note_thread(&mut self, tid: u32, at: Timestamp) {
        if self.threads.len() >= MAX_THREADS && !self.threads.contains_key(&tid) {
            let mut moments: Vec<_> = self.threads.values().copied().collect();
            moments.sort_unstable();
            let median = moments.get(MAX_THREADS / 2).copied().unwrap_or_default();
            self.threads.retain(|_, at| *at >= median);
        }
        let latest = self.threads.entry(tid).or_default();
        *latest = at.max(*latest);
    }

    pub(super) fn note_pause(&mut self, after: Option<&StackId>, pause: Duration) {
        let mut after = after.cloned();
        if self.pauses.len() >= MAX_PAUSES && !self.pauses.contains_key(&after) {
            after = None;
        }
        let longest = self.pauses.entry(after).or_default();
        *longest = pause.max(*longest);
    }

    pub(super) fn longest_wait(&self) -> Duration {
        self.longest_wait
    }

    pub(super) fn note_wait(&mut self, waited: Duration) {
        self.longest_wait = self.longest_wait.max(waited);
    }

    pub(super) fn note_end(&mut self, age: Duration) {
        if self.retired.len() >= MAX_RETIRED {
            self.retired.pop_front();
        }
        self.retired.push_back(age);
    }

    pub(super) fn note_let_go(&mut self, stack: StackId, at: Timestamp) {
        if self.let_go.len() >= MAX_LET_GO && !self.let_go.contains_key(&stack) {
            let oldest = self.let_go.iter().min_by_key(|&(_, &at)| at).map(|(&stack, _)| stack);
            oldest.and_then(|stack| self.let_go.remove(&stack));
        }
        let latest = self.let_go.entry(stack).or_default();
        *latest = at.max(*latest);
    }

    pub(super) fn note_reuse(&mut self, one: ReusedAfter) {
        if self.reused_after.len() >= MAX_REUSES {
            self.reused_after.pop_front();
        }
        self.reused_after.push_back(one);
    }
}
