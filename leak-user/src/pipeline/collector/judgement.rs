//! Judging the table and printing what was found.

use std::collections::HashSet;

use super::Collector;
use crate::event::Timestamp;
use crate::findings::Change;
use crate::pipeline::Ended;
use crate::report::{EventCounts, Snapshot};
use crate::stacks::{Quality, Shortfall};
use crate::{clock, detect, process, table};

/// The state as reports see it. A macro, because the output is borrowed apart from the rest.
macro_rules! snapshot {
    ($collector:ident, $now:ident, ended: $ended:literal) => {
        Snapshot {
            table: &$collector.table,
            ledger: &$collector.ledger,
            thresholds: &$collector.thresholds,
            stacks: &$collector.stacks,
            processes: &$collector.processes,
            run: &$collector.run,
            events: $collector.event_counts(),
            now: $now,
            ended: $ended,
            clock: $collector.clock,
        }
    };
}

impl Collector {
    /// Judges the table and prints what has changed.
    pub(in crate::pipeline) fn judge(&mut self) -> anyhow::Result<()> {
        let now = clock::now();
        let mut changes = self.keep_what_exited_leaked();
        changes.extend(self.update_ledger(now));
        let snapshot = snapshot!(self, now, ended: false);
        Ok(self.output.interval(&snapshot, &changes)?)
    }

    /// Judges for the last time and prints the report.
    pub(in crate::pipeline) fn report(mut self) -> anyhow::Result<Ended> {
        let now = clock::now();
        for _ in 0..self.resolver.unresolved() {
            self.stack_counts.add(Quality::None, Some(Shortfall::NotInTime));
        }
        let mut changes = self.keep_what_exited_leaked();
        changes.extend(self.update_ledger(now));
        let snapshot = snapshot!(self, now, ended: true);
        self.output.report(&snapshot, &changes)?;
        Ok(Ended { leak: self.ledger.has_leak() })
    }

    pub(super) fn event_counts(&self) -> EventCounts {
        let counters = self.tracer.counters();
        let lost: u64 = counters.lost.iter().sum();
        EventCounts {
            received: self.events.received,
            // A connection without a slot loses all its events.
            lost: lost + self.events.undecodable + counters.table_full,
            stacks_skipped: counters.stacks_over_budget
                + counters.stacks_no_slot
                + counters.stacks_unreadable
                + self.resolver.refused(),
            stacks: self.stack_counts,
        }
    }

    /// What a process had leaked when it exited stays found: often it exits because of that.
    pub(super) fn keep_what_exited_leaked(&mut self) -> Vec<Change> {
        let accused: HashSet<_> =
            self.ledger.open().into_iter().map(|finding| finding.verdict.process).collect();
        let exited = accused.into_iter().filter(|&process| {
            let is_held = |connection: &table::Connection| {
                connection.process == process && !connection.held_by.is_empty()
            };
            // A child may live on with the connections of its parent.
            !process::is_running(process) && !self.table.connections().any(is_held)
        });
        exited.collect::<Vec<_>>().into_iter().flat_map(|p| self.ledger.process_exited(p)).collect()
    }

    pub(super) fn update_ledger(&mut self, now: Timestamp) -> Vec<Change> {
        let standing = self.ledger.standing();
        let verdicts = detect::evaluate(&self.table, &self.thresholds, &standing, now);
        self.ledger.update(verdicts, &self.table, now)
    }
}
