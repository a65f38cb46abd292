//! From when on things count.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;

/// From when on things count.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Thresholds {
    /// How long without payload counts as silent.
    pub silent_after: Duration,
    /// How often connections are judged.
    pub interval: Duration,
    /// The pool's or server's cap, for forecasts.
    pub limit: Option<u64>,
}

impl Thresholds {
    /// What was found out since this moment still counts as found out just now. An interval may
    /// bring nothing new, as when a busy program changes all the time; more is out of date.
    #[must_use]
    pub fn recently(&self, now: Timestamp) -> Timestamp {
        const PATIENCE: Duration = Duration::from_secs(5);
        now.before((self.interval.saturating_mul(2)).saturating_add(PATIENCE))
    }
}
