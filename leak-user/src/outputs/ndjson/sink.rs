//! The lines as an output.

use std::io::{BufWriter, Write};

use crate::engine::Beginning;
use crate::engine::findings::Change;
use crate::engine::snapshot::Snapshot;
use crate::model::time::Clock;
use crate::model::{Fact, IntervalCost, Timestamp};
use crate::outputs::ndjson::{
    EventKind, Events, write_change, write_event, write_interval_cost, write_report, write_start,
};
use crate::outputs::{OutputError, Sink};

/// Prints a line for each event, for each change of a finding, and for the report.
pub struct Ndjson<W: Write> {
    out: BufWriter<W>,
    events: Events,
    /// `None` until the run begins.
    clock: Option<Clock>,
}

impl<W: Write> Ndjson<W> {
    /// Prints these kinds of lines to `out`.
    pub fn new(out: W, events: Events) -> Self {
        Self { out: BufWriter::new(out), events, clock: None }
    }

    fn changes(&mut self, snapshot: &Snapshot<'_>, changes: &[Change]) -> Result<(), OutputError> {
        for change in changes {
            write_change(&mut self.out, change, snapshot, &self.events)?;
        }
        Ok(())
    }
}

impl<W: Write> Sink for Ndjson<W> {
    fn begin(&mut self, beginning: &Beginning) -> Result<(), OutputError> {
        self.clock = Some(beginning.clock);
        if self.events.want(EventKind::RunStarted) {
            write_start(&mut self.out, beginning)?;
        }
        Ok(())
    }

    fn fact(&mut self, _: Timestamp, fact: &Fact) -> Result<(), OutputError> {
        if let (Fact::Event(event), Some(clock)) = (fact, &self.clock)
            && EventKind::of(event).is_some_and(|kind| self.events.want(kind))
        {
            write_event(&mut self.out, event, clock)?;
        }
        Ok(())
    }

    fn interval(&mut self, snapshot: &Snapshot<'_>, changes: &[Change]) -> Result<(), OutputError> {
        self.changes(snapshot, changes)?;
        self.flush()
    }

    fn end(&mut self, snapshot: &Snapshot<'_>, changes: &[Change]) -> Result<(), OutputError> {
        self.changes(snapshot, changes)?;
        if self.events.want(EventKind::Report) {
            write_report(&mut self.out, snapshot)?;
        }
        self.flush()
    }

    fn interval_cost(&mut self, now: Timestamp, cost: &IntervalCost) -> Result<(), OutputError> {
        if let Some(clock) = &self.clock
            && self.events.want(EventKind::Interval)
        {
            write_interval_cost(&mut self.out, now, cost, clock)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), OutputError> {
        Ok(self.out.flush()?)
    }
}
