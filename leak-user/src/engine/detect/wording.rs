//! Counts and durations in words.

use std::fmt;
use std::time::Duration;

/// "1 connection", "2 connections".
pub(crate) fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// "1.5 s", "41 s", "12 min", "3 h 5 min".
pub(crate) fn duration(duration: Duration) -> String {
    let (number, unit) = parts(duration);
    format!("{number} {unit}")
}

/// " (3 failed)"; nothing when there are none.
pub(super) struct Among(pub(super) usize, pub(super) &'static str);

impl fmt::Display for Among {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(0, _) => Ok(()),
            Self(count, what) => write!(f, " ({count} {what})"),
        }
    }
}

/// A duration's number and its unit.
fn parts(duration: Duration) -> (String, &'static str) {
    match duration.as_secs() {
        0..10 => {
            let tenths = duration.as_millis() / 100;
            let number = match (tenths / 10, tenths % 10) {
                (whole, 0) => whole.to_string(),
                (whole, tenth) => format!("{whole}.{tenth}"),
            };
            (number, "s")
        }
        seconds @ 10..600 => (seconds.to_string(), "s"),
        seconds @ 600..7200 => ((seconds / 60).to_string(), "min"),
        seconds => (format!("{} h {}", seconds / 3600, seconds / 60 % 60), "min"),
    }
}

/// The numbers of two durations in one unit, that of the longer one.
pub(super) fn parts_of_both(least: Duration, most: Duration) -> ((String, String), &'static str) {
    let in_units = |duration: Duration, unit: u64| {
        let tenths = duration.as_secs() * 10 / unit;
        match (tenths / 10, tenths % 10) {
            (whole @ 10.., _) | (whole, 0) => whole.to_string(),
            (whole, tenth) => format!("{whole}.{tenth}"),
        }
    };
    let (unit, name) = match (least.as_secs(), most.as_secs()) {
        (_, ..600) => return ((parts(least).0, parts(most).0), "s"),
        (7200.., _) => (3600, "h"),
        _ => (60, "min"),
    };
    ((in_units(least, unit), in_units(most, unit)), name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        let milliseconds = |ms| duration(Duration::from_millis(ms));
        assert_eq!(milliseconds(0), "0 s");
        assert_eq!(milliseconds(500), "0.5 s");
        assert_eq!(milliseconds(5_000), "5 s");
        assert_eq!(milliseconds(63_900), "63 s");
        assert_eq!(milliseconds(720_000), "12 min");
        assert_eq!(milliseconds(11_100_000), "3 h 5 min");
    }

    #[test]
    fn plurals() {
        assert_eq!(plural(1, "connection"), "1 connection");
        assert_eq!(plural(0, "connection"), "0 connections");
    }
}
