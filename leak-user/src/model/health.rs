//! How the tracer itself fares: what it received and lost, what it copied, and what it costs.

use std::time::{Duration, SystemTime};

use leak_stacks::StackCounts;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Everything that a trace knows of itself, counted since its hooks were attached.
///
/// Reports and metrics are made from it. A recording keeps what reports show.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Events received from the kernel.
    pub received: u64,
    /// Events lost on the way, and those of connections that were not traced.
    pub lost: u64,
    /// Stacks that were wanted and could not be captured or unwound.
    pub stacks_skipped: u64,
    /// Resolved stacks, by quality.
    pub stacks: StackCounts,
    /// Stacks that the kernel programs copied, or why they did not.
    #[serde(default)]
    pub copies: StackCopies,
    /// Runs of the kernel programs that the kernel skipped, whatever socket they were about.
    #[serde(default)]
    pub skipped_runs: u64,
    /// CPU time.
    #[serde(default)]
    pub cost: Cost,
    /// Events by kind, as the kernel programs count them. Not recorded, as all that follows.
    #[serde(skip)]
    pub kinds: Vec<EventKind>,
    /// Events that could not be decoded.
    #[serde(skip)]
    pub undecodable: u64,
    /// Calls that sent or received something and could not be followed.
    #[serde(skip)]
    pub unseen_calls: u64,
    /// Connections that were not traced because the kernel programs' table was full.
    #[serde(skip)]
    pub table_full: u64,
    /// Each kernel program.
    #[serde(skip)]
    pub programs: Vec<ProgramHealth>,
    /// The collector's own process; `None` when procfs cannot be read, or nobody asked.
    #[serde(skip)]
    pub own: Option<OwnProcess>,
}

/// Events of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventKind {
    /// What it is called in metrics.
    pub name: &'static str,
    /// Sent by the kernel programs.
    pub sent: u64,
    /// Lost because the ring buffer was full.
    pub lost: u64,
}

/// A kernel program's runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramHealth {
    /// The program's name.
    pub program: String,
    /// CPU time and number of runs; `None` while `kernel.bpf_stats_enabled` is off.
    pub counted: Option<(Duration, u64)>,
    /// Runs that the kernel skipped; `None` where it does not count them.
    pub skipped: Option<u64>,
}

/// The collector's own process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnProcess {
    /// CPU time of all threads.
    pub cpu: Duration,
    /// Resident memory.
    pub resident_bytes: u64,
    /// Address space.
    pub virtual_bytes: u64,
    /// When it started.
    pub started_at: SystemTime,
}

/// Stacks of connects and requests, by what the kernel programs did with each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StackCopies {
    /// Copied.
    pub recorded: u64,
    /// Left out because the second's budget was spent.
    pub over_budget: u64,
    /// Left out because the flight recorder was full, or there was no memory for more of it.
    pub no_slot: u64,
    /// Not readable.
    pub unreadable: u64,
}

impl StackCopies {
    /// The share that was copied; `None` when there was nothing to copy.
    #[must_use]
    pub fn share(&self) -> Option<f64> {
        let Self { recorded, over_budget, no_slot, unreadable } = *self;
        let all = recorded + over_budget + no_slot + unreadable;
        (all > 0).then(|| recorded as f64 / all as f64)
    }
}

/// CPU time that a trace has taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// How long the trace has lasted.
    pub lasted: Duration,
    /// CPU time of the collector.
    pub collector: Duration,
    /// CPU time of the kernel programs; `None` when the kernel does not count it.
    pub kernel: Option<Sample>,
}

/// CPU time taken while it was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// CPU time taken.
    pub busy: Duration,
    /// How long it was measured.
    pub watched: Duration,
}

impl Sample {
    /// Cores kept busy: 0.01 is one per cent of one core. `None` when nothing was measured.
    #[must_use]
    pub fn cores(&self) -> Option<f64> {
        (!self.watched.is_zero()).then(|| self.busy.as_secs_f64() / self.watched.as_secs_f64())
    }
}

impl Cost {
    /// Cores that the collector keeps busy.
    #[must_use]
    pub fn collector_cores(&self) -> Option<f64> {
        Sample { busy: self.collector, watched: self.lasted }.cores()
    }

    /// Cores that the kernel programs keep busy.
    #[must_use]
    pub fn kernel_cores(&self) -> Option<f64> {
        self.kernel?.cores()
    }
}

/// What it took to read the connections and to resolve stacks in one interval.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntervalCost {
    /// Connections in the kernel programs' table.
    pub connections: usize,
    /// CPU time for reading their counters.
    pub read: Option<Duration>,
    /// CPU time for applying counters and list to the engine's table.
    pub taken_in: Option<Duration>,
    /// Sockets that the kernel listed; `None` when it could not list them.
    pub listed: Option<usize>,
    /// CPU time for listing them, beside the event loop.
    pub list: Option<Duration>,
    /// CPU time for finding the processes that hold them, beside the event loop.
    pub holders: Option<Duration>,
    /// How long it took to resolve each stack since the interval before, beside the event loop.
    pub stacks: Vec<Duration>,
    /// Threads and goroutines whose stacks were looked at since the interval before.
    pub looked_at: usize,
    /// CPU time for that, beside the event loop.
    pub looks: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_time_taken_by_time_watched() {
        let sample = Sample { busy: Duration::from_millis(3), watched: Duration::from_secs(2) };
        let cost = Cost {
            lasted: Duration::from_secs(10),
            collector: Duration::from_millis(1),
            kernel: Some(sample),
        };
        assert_eq!(cost.collector_cores(), Some(0.0001));
        assert_eq!(cost.kernel_cores(), Some(0.0015));
    }

    #[test]
    fn nothing_is_said_of_what_was_not_watched() {
        assert_eq!(
            (Cost::default().collector_cores(), Cost::default().kernel_cores()),
            (None, None)
        );
        let cost = Cost { kernel: Some(Sample::default()), ..Cost::default() };
        assert_eq!(cost.kernel_cores(), None);
    }
}
