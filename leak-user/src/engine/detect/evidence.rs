//! The evidence of verdicts: numbers, and the sentence made of them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use crate::engine::detect::no_slot_left::NoSlotLeft;
use crate::engine::detect::wording::{duration, parts_of_both};

/// The evidence of a verdict. Each detector has its own type; `Display` is the sentence that
/// reports show.
pub trait Evidence: fmt::Debug + fmt::Display + Send + Sync {
    /// Its numbers, by the names that they have in reports.
    fn numbers(&self) -> Numbers;

    /// Advice that is better than the detector's usual one.
    fn next_step(&self) -> Option<&'static str> {
        None
    }

    /// Who holds the slots of a server that has none left.
    fn no_slot_left(&self) -> Option<&NoSlotLeft> {
        None
    }
}

/// Numbers by name; those of durations end in `_ms`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Numbers(BTreeMap<&'static str, u64>);

impl Numbers {
    /// The number of connections that a verdict is about.
    pub(super) fn of(connections: usize) -> Self {
        Self::default().count("connections", connections)
    }

    /// Adds a count; negative ones become 0.
    pub(super) fn count(mut self, name: &'static str, count: impl TryInto<u64>) -> Self {
        self.0.insert(name, count.try_into().unwrap_or_default());
        self
    }

    /// Adds a count of what is told only when there is some.
    pub(super) fn some(self, name: &'static str, count: usize) -> Self {
        if count > 0 { self.count(name, count) } else { self }
    }

    /// Adds a duration.
    pub(super) fn time(self, name: &'static str, time: Duration) -> Self {
        self.count(name, time.as_millis())
    }

    /// Adds both ends of a span.
    pub(super) fn span(self, least: &'static str, most: &'static str, span: Span) -> Self {
        self.time(least, span.least).time(most, span.most)
    }

    /// Adds how long connections have been silent, and from when on that counts.
    pub(super) fn silence(self, silence: Silence) -> Self {
        self.span("silent_min_ms", "silent_max_ms", silence.lasted)
            .time("threshold_ms", silence.threshold)
    }

    /// Names and numbers, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(&name, &number)| (name, number))
    }
}

/// The shortest and the longest of some durations; 0 when there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The shortest.
    pub least: Duration,
    /// The longest.
    pub most: Duration,
}

impl FromIterator<Duration> for Span {
    fn from_iter<T: IntoIterator<Item = Duration>>(durations: T) -> Self {
        let widen = |span: Option<Self>, one: Duration| {
            let Self { least, most } = span.unwrap_or(Self { least: one, most: one });
            Some(Self { least: one.min(least), most: one.max(most) })
        };
        durations.into_iter().fold(None, widen).unwrap_or_default()
    }
}

/// "41-63 s"; "41 s" when both ends are the same. Both have the unit of the longer one.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((low, high), unit) = parts_of_both(self.least, self.most);
        if low == high { write!(f, "{high} {unit}") } else { write!(f, "{low}-{high} {unit}") }
    }
}

/// How long connections have been silent, and the threshold for it.
#[derive(Clone, Copy, Debug)]
pub struct Silence {
    /// How long each has been silent.
    pub lasted: Span,
    /// From when on it counts.
    pub threshold: Duration,
}

/// "silent for 41-63 s (threshold 60 s)".
impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "silent for {} (threshold {})", self.lasted, duration(self.threshold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_name_both_ends() {
        let spanned = |seconds: &[u64]| {
            seconds.iter().copied().map(Duration::from_secs).collect::<Span>().to_string()
        };
        assert_eq!(spanned(&[63, 41, 50]), "41-63 s");
        assert_eq!(spanned(&[41, 41]), "41 s");
        assert_eq!(spanned(&[41, 1200]), "0.6-20 min");
        assert_eq!(spanned(&[577, 601]), "9.6-10 min");
        assert_eq!(spanned(&[100, 10_000]), "1.6-166 min");
        assert_eq!(spanned(&[9_000, 10_900]), "2.5-3 h");
        assert_eq!(spanned(&[]), "0 s");
    }
}
