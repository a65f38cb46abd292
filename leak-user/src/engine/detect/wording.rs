//! Counts and durations in words.

use std::fmt;
use std::time::Duration;

/// "1 connection", "2 connections".
pub(crate) fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// "1.5 s", "41 s", "12 m", "3 h 5 m".
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
pub(super) fn parts(duration: Duration) -> (String, &'static str) {
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
        seconds @ 600..7200 => ((seconds / 60).to_string(), "m"),
        seconds => (format!("{} h {}", seconds / 3600, seconds / 60 % 60), "m"),
    }
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
        assert_eq!(milliseconds(720_000), "12 m");
        assert_eq!(milliseconds(11_100_000), "3 h 5 m");
    }

    #[test]
    fn plurals() {
        assert_eq!(plural(1, "connection"), "1 connection");
        assert_eq!(plural(0, "connection"), "0 connections");
    }
}
