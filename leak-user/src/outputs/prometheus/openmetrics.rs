//! The OpenMetrics text format, version 1.0.0.
//!
//! It differs little from Prometheus's own text format: a counter's family is named without the
//! `_total` of its samples, and the text ends with `# EOF`.

use std::fmt::{self, Write as _};

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

/// The format's content type.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Encodes families, which must be counters, gauges or histograms.
pub(super) fn encode(families: &[MetricFamily]) -> String {
    let mut out = String::new();
    for family in families {
        // Writing to a String cannot fail.
        let _ = write_family(&mut out, family);
    }
    out.push_str("# EOF\n");
    out
}

fn write_family(out: &mut String, family: &MetricFamily) -> fmt::Result {
    let counts = family.get_field_type() == MetricType::COUNTER;
    let name = family.name();
    let name = if counts { name.strip_suffix("_total").unwrap_or(name) } else { name };
    let kind = match family.get_field_type() {
        MetricType::COUNTER => "counter",
        MetricType::HISTOGRAM => "histogram",
        _ => "gauge",
    };
    writeln!(out, "# TYPE {name} {kind}")?;
    writeln!(out, "# HELP {name} {}", Escaped(family.help()))?;
    for metric in family.get_metric() {
        match family.get_field_type() {
            MetricType::COUNTER => {
                sample(out, (name, "_total"), metric, None, metric.get_counter().get_value())?;
            }
            MetricType::HISTOGRAM => write_histogram(out, name, metric)?,
            _ => sample(out, (name, ""), metric, None, metric.get_gauge().get_value())?,
        }
    }
    Ok(())
}

fn write_histogram(out: &mut String, name: &str, metric: &Metric) -> fmt::Result {
    let histogram = metric.get_histogram();
    let bounded = histogram.get_bucket().iter();
    let bounded = bounded.map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()));
    for (bound, count) in bounded.chain([(f64::INFINITY, histogram.get_sample_count())]) {
        sample(out, (name, "_bucket"), metric, Some(bound), count as f64)?;
    }
    sample(out, (name, "_sum"), metric, None, histogram.get_sample_sum())?;
    sample(out, (name, "_count"), metric, None, histogram.get_sample_count() as f64)
}

fn sample(
    out: &mut String,
    (name, suffix): (&str, &str),
    metric: &Metric,
    bound: Option<f64>,
    value: f64,
) -> fmt::Result {
    write!(out, "{name}{suffix}")?;
    let mut separator = '{';
    for label in metric.get_label() {
        write_label(out, separator, label)?;
        separator = ',';
    }
    if let Some(bound) = bound {
        // The specification requires bounds to look like floats.
        let bound = if bound.is_infinite() { "+Inf".to_owned() } else { format!("{bound:?}") };
        write!(out, "{separator}le=\"{bound}\"")?;
        separator = ',';
    }
    if separator == ',' {
        out.push('}');
    }
    writeln!(out, " {value}")
}

fn write_label(out: &mut String, separator: char, label: &LabelPair) -> fmt::Result {
    write!(out, "{separator}{}=\"{}\"", label.name(), Escaped(label.value()))
}

/// Displays text with backslash, quote and line feed escaped.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            c => f.write_char(c),
        })
    }
}
