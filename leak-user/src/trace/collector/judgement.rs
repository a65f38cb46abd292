//! Having the table judged and the findings printed.

use crate::clock;
use crate::engine::Fact;
use crate::engine::snapshot::{EventCounts, StackCopies};
use crate::model::cost::Cost;
use crate::outputs::prometheus::Tracing;
use crate::trace::Ended;
use crate::trace::collector::Collector;
use leak_stacks::{Quality, TruncationReason};

impl Collector {
    /// Has the table judged, and what has changed printed.
    pub(in crate::trace) fn judge(&mut self) -> anyhow::Result<()> {
        let begun = clock::thread_cpu_time();
        self.look_for_exits()?;
        self.look_for_gone_users()?;
        let counts = self.event_counts();
        self.tell(&Fact::Judge(counts))?;
        log::debug!("CPU time: judged in {:?}", clock::thread_cpu_time().saturating_sub(begun));
        let tracing = || Tracing {
            counters: self.tracer.counters(),
            undecodable: self.events.undecodable,
            programs: self.tracer.program_runs(),
            skipped: self.tracer.skipped_runs(),
        };
        self.outlets.publish(&self.engine, counts, clock::now(), tracing);
        Ok(())
    }

    /// Has the table judged for the last time, and the report printed.
    pub(in crate::trace) fn report(mut self) -> anyhow::Result<Ended> {
        self.look_for_exits()?;
        self.look_for_gone_users()?;
        for _ in 0..self.resolver.unresolved() {
            self.stack_counts.add(Quality::None, Some(TruncationReason::NotInTime));
        }
        for (program, count) in self.tracer.skipped_runs().iter().filter(|(_, count)| *count > 0) {
            log::info!("the kernel skipped {count} runs of {program}, whatever they were about");
        }
        let counts = self.event_counts();
        let told = self.tell(&Fact::End(counts));
        if let Some(recorder) = self.recorder {
            recorder.finish();
        }
        // A reader of the report who has gone takes nothing away from the picture.
        let drawn = self.outlets.finish(&self.engine, counts, clock::now());
        told?;
        drawn?;
        Ok(Ended { leak: self.engine.has_leak() })
    }

    fn event_counts(&self) -> EventCounts {
        let now = clock::now();
        let cost = Cost {
            lasted: now.since(self.began),
            collector: clock::cpu_time().saturating_sub(self.cpu_before),
            kernel: self.tracer.cost(now),
        };
        let counters = self.tracer.counters();
        let lost: u64 = counters.lost.iter().sum();
        EventCounts {
            received: self.events.received,
            // A connection without a slot loses all its events.
            lost: lost + self.events.undecodable + counters.table_full + counters.unseen_calls,
            stacks_skipped: counters.stacks_over_budget
                + counters.stacks_no_slot
                + counters.stacks_unreadable
                + self.resolver.refused(),
            stacks: self.stack_counts,
            copies: StackCopies {
                recorded: counters.stacks_copied,
                over_budget: counters.stacks_over_budget,
                no_slot: counters.stacks_no_slot,
                unreadable: counters.stacks_unreadable,
            },
            skipped_runs: self.tracer.skipped_runs().iter().map(|(_, count)| count).sum(),
            cost,
        }
    }
}
