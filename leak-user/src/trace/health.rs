//! How the tracer fares, measured for a report.

use std::time::Duration;

use crate::clock;
use crate::model::{Cost, EventKind, Health, OwnProcess, StackCopies, Timestamp};
use crate::sources::kernel::{Counters, Tracer};
use crate::sources::procfs;
use crate::trace::intake::Intake;
use crate::trace::stack_requests::StackRequests;

/// Measures from the moment that it is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct HealthMeter {
    began: Timestamp,
    /// CPU time that was taken until then.
    cpu_before: Duration,
}

impl HealthMeter {
    pub(super) fn start() -> Self {
        Self { began: clock::now(), cpu_before: clock::cpu_time() }
    }

    /// How everything stands.
    pub(super) fn read(&self, tracer: &Tracer, intake: &Intake, stacks: &StackRequests) -> Health {
        let now = clock::now();
        let counters = tracer.counters();
        let programs = tracer.programs();
        let copies = StackCopies {
            recorded: counters.stacks_copied,
            over_budget: counters.stacks_over_budget,
            no_slot: counters.stacks_no_slot,
            unreadable: counters.stacks_unreadable,
        };
        let skipped = copies.over_budget + copies.no_slot + copies.unreadable + stacks.refused();
        let lost: u64 = counters.lost.iter().sum();
        Health {
            received: intake.received(),
            // A connection without a slot loses all its events.
            lost: lost + intake.undecodable() + counters.table_full + counters.unseen_calls,
            stacks_skipped: skipped,
            stacks: stacks.counts(),
            copies,
            skipped_runs: programs.iter().filter_map(|program| program.skipped).sum(),
            cost: Cost {
                lasted: now.since(self.began),
                collector: clock::cpu_time().saturating_sub(self.cpu_before),
                kernel: tracer.cost(now),
            },
            kinds: kinds(&counters),
            undecodable: intake.undecodable(),
            unseen_calls: counters.unseen_calls,
            table_full: counters.table_full,
            programs,
            own: own_process(),
        }
    }
}

fn kinds(counters: &Counters) -> Vec<EventKind> {
    use leak_common::event::kind;
    let names = [
        (kind::OPENED, "opened"),
        (kind::ESTABLISHED, "established"),
        (kind::FAILED, "failed"),
        (kind::CLOSED, "closed"),
    ];
    let count = |counts: &[u64], kind: u32| counts.get(kind as usize).copied().unwrap_or(0);
    let kind = |(kind, name)| EventKind {
        name,
        sent: count(&counters.sent, kind),
        lost: count(&counters.lost, kind),
    };
    names.map(kind).into()
}

/// What this process costs; `None` when procfs cannot be read.
fn own_process() -> Option<OwnProcess> {
    let stat = ::procfs::process::Process::myself().ok()?.stat().ok()?;
    let started_at =
        procfs::describe(procfs::identify(std::process::id()).ok()?).ok()?.started_at?;
    Some(OwnProcess {
        cpu: clock::cpu_time(),
        resident_bytes: stat.rss * rustix::param::page_size() as u64,
        virtual_bytes: stat.vsize,
        started_at,
    })
}
