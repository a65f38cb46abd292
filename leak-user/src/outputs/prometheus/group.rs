//! The figures of all connections with the same labels.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::engine::detect::{Reason, Severity};
use crate::engine::table::Connection;
use crate::model::Pod;
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
    /// When a process of the group was last seen alive.
    pub(super) alive_at: Timestamp,
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
        self.silent = 0;
        self.oldest = Duration::ZERO;
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
