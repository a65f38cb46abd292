//! Having the table judged and the findings printed.

use super::Collector;
use crate::engine::Fact;
use crate::pipeline::Ended;
use crate::report::EventCounts;

impl Collector {
    /// Has the table judged, and what has changed printed.
    pub(in crate::pipeline) fn judge(&mut self) -> anyhow::Result<()> {
        self.look_for_exits()?;
        let counts = self.event_counts();
        Ok(self.tell(Fact::Judge(counts))?)
    }

    /// Has the table judged for the last time, and the report printed.
    pub(in crate::pipeline) fn report(mut self) -> anyhow::Result<Ended> {
        self.look_for_exits()?;
        let counts = self.event_counts();
        let told = self.tell(Fact::End(counts));
        if let Some(recorder) = self.recorder {
            recorder.finish();
        }
        told?;
        Ok(Ended { leak: self.engine.has_leak() })
    }

    fn event_counts(&self) -> EventCounts {
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
        }
    }
}
