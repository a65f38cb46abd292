//! The time of day, where the reader is.

use std::time::{Duration, SystemTime};

use jiff::tz::Offset;

/// Whose time of day is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Zone {
    /// That of Greenwich.
    #[default]
    Utc,
    /// That of this machine, or of the variable `TZ`.
    Local,
}

impl Zone {
    /// "2026-11-30 22:41:07".
    pub(super) fn date_and_time(self, at: SystemTime) -> String {
        self.format(at, "%Y-%m-%d %H:%M:%S")
    }

    /// "22:41:07".
    pub(super) fn time(self, at: SystemTime) -> String {
        self.format(at, "%H:%M:%S")
    }

    /// "+02:00".
    pub(super) fn offset(self, at: SystemTime) -> String {
        let seconds = self.offset_at(seconds(at)).seconds();
        let (sign, minutes) = (if seconds < 0 { '-' } else { '+' }, seconds.abs() / 60);
        format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }

    fn format(self, at: SystemTime, format: &str) -> String {
        let seconds = seconds(at);
        let moment = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX);
        self.offset_at(seconds).to_datetime(moment).strftime(format).to_string()
    }

    fn offset_at(self, seconds: i64) -> Offset {
        let local = match self {
            Self::Utc => None,
            Self::Local => local_offset(seconds),
        };
        local.and_then(|offset| Offset::from_seconds(offset).ok()).unwrap_or(Offset::UTC)
    }
}

fn seconds(at: SystemTime) -> i64 {
    let since_epoch = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX)
}

/// How many seconds this machine's time of day is ahead of Greenwich's.
fn local_offset(seconds: i64) -> Option<i32> {
    let seconds = libc::time_t::from(seconds);
    // SAFETY: all bytes zero are a valid `tm`, whose pointer may be null.
    let mut local: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both are valid for the call. No thread of this program changes the environment.
    let filled = unsafe { libc::localtime_r(&raw const seconds, &raw mut local) };
    if filled.is_null() { None } else { i32::try_from(local.tm_gmtoff).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_no_fractions_and_a_known_offset() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_999);
        assert_eq!(Zone::Utc.date_and_time(at), "2023-11-14 22:13:20");
        assert_eq!(Zone::Utc.time(at), "22:13:20");
        assert_eq!(Zone::Utc.offset(at), "+00:00");
        assert_eq!(Zone::Local.offset(at).len(), "+00:00".len());
    }
}
