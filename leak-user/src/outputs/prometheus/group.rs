//! The figures of all connections with the same labels.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::engine::detect::{Reason, Severity};
use crate::engine::table::Connection;
use crate::model::Pod;
use crate::model::pools::PoolNumbers;
use crate::model::{TcpState, Timestamp, WireState};
use crate::outputs::prometheus::names::IDLE_BUCKETS;

/// The labels that identify a group. PIDs, client ports and stacks would be too many series.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LabelSet {
    /// Name of the process.
    pub(super) comm: String,
    /// The server.
    pub(super) destination: String,
    /// The process's pod.
    pub(super) pod: Option<Pod>,
}

/// The figures of one group.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub(super) opened: u64,
    pub(super) closed: u64,
    pub(super) failures: u64,
    /// Number of connections by state. States stay, with 0, because series that come and go break
    /// graphs.
    pub(super) states: BTreeMap<&'static str, u64>,
    pub(super) silent: u64,
    pub(super) oldest: Duration,
    /// Number of connections with findings. Reasons stay, too, with 0.
    pub(super) suspected: BTreeMap<(Reason, Severity), u64>,
    pub(super) idle: Idle,
    /// What the programs' own pools say, where they could be read.
    pub(super) pools: Option<PoolFigures>,
    /// How long callers have waited for those, in nanoseconds.
    pub(super) pool_wait: u64,
    /// When a process of the group was last seen alive.
    pub(super) alive_at: Timestamp,
}

/// The sum of programs' own pools.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PoolFigures {
    pub(super) in_use: u64,
    pub(super) idle: u64,
    /// `None` when one of them has no limit.
    pub(super) max: Option<u64>,
    pub(super) waiting: u64,
}

impl PoolFigures {
    fn of(numbers: &PoolNumbers) -> Self {
        Self {
            in_use: numbers.in_use(),
            idle: numbers.idle,
            max: numbers.max_open,
            waiting: numbers.waiting.unwrap_or_default(),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            in_use: self.in_use + other.in_use,
            idle: self.idle + other.idle,
            max: self.max.zip(other.max).map(|(one, other)| one + other),
            waiting: self.waiting + other.waiting,
        }
    }
}

/// A histogram of the connections' idle times, observed once per interval.
#[derive(Clone, Debug, Default)]
pub(super) struct Idle {
    /// Count per bucket, not cumulative; the last bucket has no bound.
    pub(super) buckets: [u64; IDLE_BUCKETS.len() + 1],
    /// Sum of all observations in seconds.
    pub(super) sum: f64,
}

impl Idle {
    fn observe(&mut self, idle: Duration) {
        let seconds = idle.as_secs_f64();
        let bucket = IDLE_BUCKETS.iter().position(|bound| seconds <= *bound);
        if let Some(count) = self.buckets.get_mut(bucket.unwrap_or(IDLE_BUCKETS.len())) {
            *count += 1;
        }
        self.sum += seconds;
    }
}

impl Group {
    /// Resets the gauges for a new snapshot.
    pub(super) fn clear_gauges(&mut self) {
        self.states.values_mut().for_each(|count| *count = 0);
        self.suspected.values_mut().for_each(|count| *count = 0);
        self.pools = None;
        self.silent = 0;
        self.oldest = Duration::ZERO;
    }

    /// Adds a pool, with the time that callers have waited for it since it was last added.
    pub(super) fn add_pool(&mut self, numbers: &PoolNumbers, new_wait: u64) {
        let figures = PoolFigures::of(numbers);
        self.pools = Some(self.pools.map_or(figures, |known| known.plus(figures)));
        self.pool_wait = self.pool_wait.saturating_add(new_wait);
    }

    /// Adds an open connection to the gauges.
    pub(super) fn add(&mut self, connection: &Connection, silent_after: Duration, now: Timestamp) {
        *self.states.entry(state(connection)).or_default() += 1;
        let silent_for = connection.silent_for(now);
        self.silent += u64::from(silent_for >= silent_after);
        self.oldest = self.oldest.max(silent_for);
        let at_rest = !connection.is_busy() && connection.tcp.state != TcpState::SynSent;
        if at_rest {
            self.idle.observe(silent_for);
        }
    }
}

/// The state label of a connection.
fn state(connection: &Connection) -> &'static str {
    match connection.tcp.state {
        TcpState::SynSent | TcpState::SynRecv => return "connecting",
        TcpState::CloseWait => return "close_wait",
        TcpState::Close => return "reset",
        state if state.closed_by_process() => return "closing",
        _ => {}
    }
    match connection.dialogue() {
        WireState::Startup => "startup",
        WireState::Idle => "idle",
        WireState::Busy => "busy",
        WireState::InTransaction => "in_transaction",
        WireState::FailedTransaction => "failed_transaction",
        WireState::Copy => "copy",
        WireState::Replication => "replication",
        WireState::Unknown if connection.is_idle() => "idle",
        WireState::Unknown if connection.is_busy() => "busy",
        WireState::Unknown => "unknown",
    }
}
