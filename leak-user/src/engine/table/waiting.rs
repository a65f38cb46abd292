//! Who waits for a connection.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{ProcessKey, StackId, Timestamp, Waiters};

/// Most processes of which it is known.
const MAX_PROCESSES: usize = 8192;
/// Most stacks of one process.
const MAX_STACKS: usize = 256;

/// A look that is this many intervals old says nothing of now.
const FRESH: u32 = 3;

/// The threads and goroutines of a process that wait for a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// When they were looked at.
    pub at: Timestamp,
    /// Since when each look has found some; the present one, if it has found none.
    pub since: Timestamp,
    /// They, by stack: the most first.
    pub waiters: Vec<Waiters>,
}

impl Waiting {
    /// Whether that is how it stands now: processes are looked at each interval as long as there is
    /// reason to.
    #[must_use]
    pub fn is_fresh(&self, now: Timestamp, interval: Duration) -> bool {
        now.since(self.at) <= interval * FRESH
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.waiters.iter().map(|waiters| u64::from(waiters.count)).sum()
    }

    /// Since when the one that has waited for longest is known to wait.
    #[must_use]
    pub fn longest_since(&self) -> Option<Timestamp> {
        self.waiters.iter().map(|waiters| waiters.since).min()
    }

    /// The stacks that they have.
    pub fn stacks(&self) -> impl Iterator<Item = &StackId> {
        self.waiters.iter().map(|waiters| &waiters.stack)
    }
}

/// The processes that were looked at.
#[derive(Debug, Default)]
pub(super) struct WaitingProcesses(BTreeMap<ProcessKey, Waiting>);

impl WaitingProcesses {
    pub(super) fn take(&mut self, process: ProcessKey, at: Timestamp, waiters: &[Waiters]) {
        let former = self.0.get(&process);
        if former.is_none() && self.0.len() >= MAX_PROCESSES {
            return;
        }
        let lasting = former.filter(|former| !former.waiters.is_empty() && !waiters.is_empty());
        let since = lasting.map_or(at, |former| former.since);
        let mut waiters = waiters.to_vec();
        waiters.sort_by_key(|waiters| (std::cmp::Reverse(waiters.count), waiters.stack));
        waiters.truncate(MAX_STACKS);
        self.0.insert(process, Waiting { at, since, waiters });
    }

    pub(super) fn get(&self, process: ProcessKey) -> Option<&Waiting> {
        self.0.get(&process)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ProcessKey, &Waiting)> {
        self.0.iter().map(|(&process, waiting)| (process, waiting))
    }

    pub(super) fn retain(&mut self, matters: impl Fn(ProcessKey) -> bool) {
        self.0.retain(|&process, _| matters(process));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::{APP, secs};

    #[test]
    fn waiting_lasts_while_each_look_finds_somebody() {
        let mut processes = WaitingProcesses::default();
        let waiters = |count, since, stack: &str| Waiters {
            count,
            since: secs(since),
            stack: StackId::from(stack),
        };
        processes.take(APP, secs(10.0), &[]);
        assert_eq!(processes.get(APP).unwrap().longest_since(), None);
        processes.take(APP, secs(20.0), &[waiters(1, 20.0, "pay"), waiters(3, 15.0, "ship")]);
        processes.take(APP, secs(30.0), &[waiters(2, 28.0, "pay")]);
        let waiting = processes.get(APP).unwrap();
        assert_eq!((waiting.since, waiting.at, waiting.count()), (secs(20.0), secs(30.0), 2));
        assert_eq!(waiting.longest_since(), Some(secs(28.0)));
        processes.take(APP, secs(40.0), &[]);
        processes.take(APP, secs(50.0), &[waiters(2, 50.0, "pay")]);
        assert_eq!(processes.get(APP).unwrap().since, secs(50.0));
        processes.retain(|process| process != APP);
        assert_eq!(processes.iter().count(), 0);
    }
}
