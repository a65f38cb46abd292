//! Measurements with confidence intervals, and the tables that show them.

use std::fmt::Write as _;

use serde::Serialize;

/// Several measurements of one thing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    /// Bounds of the median's 95 % confidence interval; of all values where they are fewer than
    /// six.
    pub(super) low: f64,
    pub(super) high: f64,
    /// How many measurements.
    pub(super) count: usize,
}

impl Spread {
    /// `None` when there are no values.
    ///
    /// The interval lies between two of the values: whatever their distribution, each is below its
    /// median as often as a coin shows heads.
    pub(super) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let count = values.len();
        let cut = beyond(count);
        let (low, high) = (*values.get(cut)?, *values.get(count.checked_sub(cut + 1)?)?);
        let median = (values[(count - 1) / 2] + values[count / 2]) / 2.0;
        Some(Self { median, low, high, count })
    }

    /// One value without a spread.
    pub(super) fn one(value: f64) -> Self {
        Self { median: value, low: value, high: value, count: 1 }
    }
}

/// How many values lie beyond the interval on each side: the most for which coins show so few
/// heads, or so few tails, in at most one case of twenty.
fn beyond(count: usize) -> usize {
    let mut probability = 0.5_f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let mut sum = probability;
    let mut cut = 0;
    while sum <= 0.025 {
        cut += 1;
        probability *= (count - cut + 1) as f64 / cut as f64;
        sum += probability;
    }
    // The bounds themselves are inside.
    cut.saturating_sub(1)
}

/// One thing that was measured: of the tracer, and of what people would use instead.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) what: String,
    pub(super) unit: &'static str,
    /// The most that it may be.
    pub(super) target: Option<f64>,
    /// Of the tracer.
    pub(super) ours: Option<Spread>,
    /// Of others, by name.
    pub(super) peers: Vec<(&'static str, Spread)>,
}

impl Row {
    pub(super) fn new(what: impl Into<String>, unit: &'static str, ours: Option<Spread>) -> Self {
        Self { what: what.into(), unit, target: None, ours, peers: Vec::new() }
    }

    pub(super) fn at_most(mut self, target: f64) -> Self {
        self.target = Some(target);
        self
    }
}

/// Rows that belong together.
#[derive(Debug, Serialize)]
pub(super) struct Section {
    pub(super) title: &'static str,
    /// How it was measured.
    pub(super) how: String,
    pub(super) rows: Vec<Row>,
}

impl Section {
    /// As a part of a page.
    pub(super) fn markdown(&self) -> String {
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in self.rows.iter().flat_map(|row| &row.peers) {
            if !names.contains(name) {
                names.push(name);
            }
        }
        let mut out = format!("## {}\n\n{}\n\n| | target | pgsocktrace |", self.title, self.how);
        let heads: String = names.iter().map(|name| format!(" {name} |")).collect();
        let _ = write!(out, "{heads}\n|---|---|---|{}\n", "---|".repeat(names.len()));
        for row in &self.rows {
            let target = row.target.map_or_else(String::new, |most| format!("≤ {}", number(most)));
            let ours = row.ours.map_or_else(|| "not measured".to_owned(), spread);
            let kept = match (row.target, row.ours) {
                (Some(most), Some(ours)) if ours.median > most => " **missed**",
                _ => "",
            };
            let _ = write!(out, "| {}, {} | {target} | {ours}{kept} |", row.what, row.unit);
            for name in &names {
                let peer = row.peers.iter().find(|(peer, _)| peer == name);
                let _ = write!(out, " {} |", peer.map_or_else(String::new, |(_, of)| spread(*of)));
            }
            out.push('\n');
        }
        out
    }
}

fn spread(spread: Spread) -> String {
    let Spread { median, low, high, count } = spread;
    if count == 1 {
        return number(median);
    }
    format!("{} ({} – {})", number(median), number(low), number(high))
}

/// With three digits that count.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 99.5 || size.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 9.95 => format!("{value:.1}"),
        size if size >= 0.995 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_have_the_interval_that_statisticians_give_them() {
        // From tables of the sign test: of 6 values all, of 20 the 6th to the 15th.
        for (count, low, high) in [(3, 1, 3), (5, 1, 5), (6, 1, 6), (9, 2, 8), (20, 6, 15)] {
            let values = (1..=count).rev().map(f64::from).collect();
            let spread = Spread::of(values).unwrap();
            assert_eq!((spread.low, spread.high), (f64::from(low), f64::from(high)), "{count}");
            assert_eq!(spread.median, f64::from(count + 1) / 2.0);
        }
        assert_eq!(Spread::of(Vec::new()), None);
    }

    #[test]
    fn a_section_shows_targets_and_peers() {
        let ours = Spread { median: 80.25, low: 70.0, high: 120.4, count: 5 };
        let mut row = Row::new("counted send", "ns", Some(ours)).at_most(80.0);
        row.peers.push(("bpftrace", Spread::one(2100.0)));
        let other = Row::new("connect", "µs", None).at_most(8.0);
        let section =
            Section { title: "Per event", how: "Measured.".into(), rows: vec![row, other] };
        assert_eq!(
            section.markdown(),
            "## Per event\n\nMeasured.\n\n| | target | pgsocktrace | bpftrace |\n|---|---|---|---|\n\
             | counted send, ns | ≤ 80 | 80.2 (70 – 120) **missed** | 2100 |\n\
             | connect, µs | ≤ 8 | not measured |  |\n"
        );
    }
}
