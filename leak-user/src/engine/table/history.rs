//! How many connections a pool had open, over time.

use std::collections::VecDeque;
use std::time::Duration;

use crate::model::Timestamp;

/// Most steps kept. Beyond that, pairs of steps in the older half are merged.
const MAX_STEPS: usize = 1024;

/// Changes that are closer together than this are one step: no verdict depends on less.
const RESOLUTION: Duration = Duration::from_millis(100);

/// The count is `open` from `at` until the next step.
#[derive(Clone, Copy, Debug)]
struct Step {
    at: Timestamp,
    open: i64,
}

/// The number of open connections as a step function of time, in bounded memory.
///
/// A connection that is opened and closed leaves two changes and no record of its own, so a program
/// with a connection per request costs no more than an idle one.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// The count before the first step: connections older than the trace.
    base: i64,
    steps: VecDeque<Step>,
}

impl History {
    /// Changes the count by `change` from `at` on; from ever when `at` is `None`.
    pub(super) fn change(&mut self, at: Option<Timestamp>, change: i64) {
        let first = match at {
            None => {
                self.base += change;
                0
            }
            Some(at) => self.step_at(at),
        };
        for step in self.steps.iter_mut().skip(first) {
            step.open += change;
        }
        if self.steps.len() > MAX_STEPS {
            self.thin();
        }
    }

    /// How many were open at `at`.
    pub(super) fn open_at(&self, at: Timestamp) -> i64 {
        let after = self.steps.partition_point(|step| step.at <= at);
        self.open_before(after)
    }

    /// How many are open after the last change.
    pub(super) fn open_now(&self) -> i64 {
        self.steps.back().map_or(self.base, |step| step.open)
    }

    /// When the count last changed.
    pub(super) fn changed_at(&self) -> Option<Timestamp> {
        self.steps.back().map(|step| step.at)
    }

    fn open_before(&self, index: usize) -> i64 {
        let previous = index.checked_sub(1).and_then(|index| self.steps.get(index));
        previous.map_or(self.base, |step| step.open)
    }

    /// Index of the step that begins at `at`, or close enough before.
    fn step_at(&mut self, at: Timestamp) -> usize {
        let after = self.steps.partition_point(|step| step.at <= at);
        if let Some(index) = after.checked_sub(1)
            && self.steps.get(index).is_some_and(|step| at.since(step.at) < RESOLUTION)
        {
            return index;
        }
        let open = self.open_before(after);
        self.steps.insert(after, Step { at, open });
        after
    }

    /// Merges pairs of steps in the older half.
    ///
    /// The greater count stays: what follows then shows less growth than there was, never more.
    fn thin(&mut self) {
        let newer = self.steps.split_off(MAX_STEPS / 2);
        let older = std::mem::take(&mut self.steps);
        let mut older = older.into_iter();
        while let Some(first) = older.next() {
            let open = older.next().map_or(first.open, |second| first.open.max(second.open));
            self.steps.push_back(Step { at: first.at, open });
        }
        self.steps.extend(newer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp(seconds * 1_000_000_000)
    }

    #[test]
    fn counts_from_the_moment_of_each_change() {
        let mut history = History::default();
        history.change(None, 3);
        history.change(Some(at(10)), 1);
        history.change(Some(at(20)), -2);
        assert_eq!(history.open_at(at(9)), 3);
        assert_eq!(history.open_at(at(10)), 4);
        assert_eq!(history.open_at(at(19)), 4);
        assert_eq!(history.open_at(at(25)), 2);
        assert_eq!(history.open_now(), 2);
    }

    #[test]
    fn takes_changes_of_the_past() {
        let mut history = History::default();
        history.change(Some(at(10)), 1);
        history.change(Some(at(30)), 1);
        history.change(Some(at(20)), 1);
        assert_eq!(history.open_at(at(15)), 1);
        assert_eq!(history.open_at(at(25)), 2);
        assert_eq!(history.open_now(), 3);
        history.change(None, 1);
        assert_eq!(history.open_at(at(0)), 1);
        assert_eq!(history.open_now(), 4);
    }

    #[test]
    fn stays_small_and_never_invents_growth() {
        let mut history = History::default();
        for second in 0..20_000 {
            history.change(Some(at(second)), if second % 2 == 0 { 1 } else { -1 });
        }
        assert!(history.steps.len() <= MAX_STEPS);
        assert_eq!(history.open_now(), 0);
        for second in 0..20_000 {
            assert!(history.open_now() - history.open_at(at(second)) <= 0);
        }
    }

    #[test]
    fn joins_changes_of_one_moment() {
        let mut history = History::default();
        for milli in 0..50 {
            history.change(Some(Timestamp(milli * 1_000_000)), 1);
        }
        assert_eq!(history.steps.len(), 1);
        assert_eq!(history.open_now(), 50);
    }
}
