//! From when on things count.

use std::time::Duration;

use serde::{Deserialize, Serialize};

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
