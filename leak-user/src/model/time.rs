//! Conversion of the kernel's monotonic timestamps to calendar time.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;

/// One moment on both clocks, from which all others are computed: durations stay right when the
/// calendar clock is set during a run.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Clock {
    monotonic: Timestamp,
    wall: SystemTime,
}

impl Clock {
    /// Says that `monotonic` and `wall` are the same moment.
    #[must_use]
    pub fn new(monotonic: Timestamp, wall: SystemTime) -> Self {
        Self { monotonic, wall }
    }

    /// The calendar time of `at`.
    #[must_use]
    pub fn wall(&self, at: Timestamp) -> SystemTime {
        let wall = if at >= self.monotonic {
            self.wall.checked_add(at.since(self.monotonic))
        } else {
            self.wall.checked_sub(self.monotonic.since(at))
        };
        wall.unwrap_or(self.wall)
    }

    /// `at` as RFC 3339 writes it, in UTC and to the millisecond.
    pub(crate) fn rfc3339(&self, at: Timestamp) -> String {
        rfc3339(self.wall(at))
    }
}

/// `time` as RFC 3339 writes it, in UTC and to the millisecond.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    // Cut, not rounded: a time of the report must not lie after the report.
    let milliseconds = i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_millisecond(milliseconds).unwrap_or(jiff::Timestamp::MAX);
    format!("{time:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_moments_on_both_sides_of_the_anchor() {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_500);
        let clock = Clock::new(Timestamp(10_000_000_000), wall);
        assert_eq!(clock.rfc3339(Timestamp(10_000_000_000)), "2023-11-14T22:13:20.500Z");
        assert_eq!(clock.rfc3339(Timestamp(11_000_999_999)), "2023-11-14T22:13:21.500Z");
        assert_eq!(clock.rfc3339(Timestamp(9_000_000_000)), "2023-11-14T22:13:19.500Z");
    }
}
