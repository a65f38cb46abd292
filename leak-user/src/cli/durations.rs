//! Durations as values of options.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::engine::{LONGEST_PERIOD as LONGEST, SHORTEST_PERIOD};

/// An interval, or a threshold that is checked at each interval.
pub(super) fn period(text: &str) -> Result<Duration, String> {
    duration(text, SHORTEST_PERIOD..=LONGEST)
}

/// How long a trace lasts.
pub(super) fn duration_of_trace(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_millis(1)..=LONGEST)
}

/// Time in each second.
pub(super) fn budget(text: &str) -> Result<Duration, String> {
    duration(text, Duration::ZERO..=LONGEST)
}

fn duration(text: &str, allowed: RangeInclusive<Duration>) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; durations are written 500ms, 10s, 5m or 1h"))?;
    if duration < *allowed.start() {
        let shortest = humantime::format_duration(*allowed.start());
        Err(format!("it must be at least {shortest}"))
    } else if duration > *allowed.end() {
        Err("it must be at most 365d".into())
    } else {
        Ok(duration)
    }
}
