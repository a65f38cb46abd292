//! From when on things count.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;

/// From when on an idle transaction is suspect, unless less silence counts: programs seldom think
/// for so long between two statements of one.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(10);

/// From when on things count.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Thresholds {
    /// How long without payload counts as silent.
    pub silent_after: Duration,
    /// How often connections are judged.
    pub interval: Duration,
    /// The pool's or server's cap, for forecasts.
    pub limit: Option<u64>,
    /// The run is a test that fails on a leak, so nothing may be left open at its end.
    #[serde(default)]
    pub fail_on_leak: bool,
}

impl Thresholds {
    /// How long without payload in a transaction is suspect.
    #[must_use]
    pub fn idle_in_transaction_after(&self) -> Duration {
        self.silent_after.min(IDLE_IN_TRANSACTION)
    }

    /// What was found out since this moment still counts as found out just now. An interval may
    /// bring nothing new, as when a busy program changes all the time; more is out of date.
    #[must_use]
    pub fn recently(&self, now: Timestamp) -> Timestamp {
        const PATIENCE: Duration = Duration::from_secs(5);
        now.before((self.interval.saturating_mul(2)).saturating_add(PATIENCE))
    }
}
