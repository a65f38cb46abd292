//! Numbers as a reader wants them.

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

/// "41-63 s"; "41 s" when all are the same; "0 s" when there are none.
pub(crate) fn span(durations: impl IntoIterator<Item = Duration>) -> String {
    let mut ends: Option<(Duration, Duration)> = None;
    for one in durations {
        let (least, most) = ends.get_or_insert((one, one));
        *least = one.min(*least);
        *most = one.max(*most);
    }
    let (least, most) = ends.unwrap_or_default();
    let ((low, low_unit), (high, high_unit)) = (parts(least), parts(most));
    match (low == high, low_unit == high_unit) {
        (true, true) => format!("{high} {high_unit}"),
        (false, true) => format!("{low}-{high} {high_unit}"),
        _ => format!("{low} {low_unit} to {high} {high_unit}"),
    }
}

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
    fn spans_name_both_ends() {
        let spanned = |seconds: &[u64]| span(seconds.iter().copied().map(Duration::from_secs));
        assert_eq!(spanned(&[63, 41, 50]), "41-63 s");
        assert_eq!(spanned(&[41, 41]), "41 s");
        assert_eq!(spanned(&[41, 1200]), "41 s to 20 m");
        assert_eq!(spanned(&[]), "0 s");
    }

    #[test]
    fn plurals() {
        assert_eq!(plural(1, "connection"), "1 connection");
        assert_eq!(plural(0, "connection"), "0 connections");
    }
}
