//! From when on things count.

use std::time::Duration;

use serde::{Deserialize, Serialize};

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
}
