//! Which outputs there are to be.

use std::path::PathBuf;
use std::time::Duration;

use crate::outputs::flamegraph::By;
use crate::outputs::prometheus::{Label, ListenAddress};

/// The outputs of a run.
#[derive(Clone, Debug, Default)]
pub struct OutputSettings {
    /// What is printed to stdout.
    pub format: Format,
    /// A recording to write.
    pub record: Option<PathBuf>,
    /// Metrics to serve.
    pub metrics: Option<MetricsSettings>,
    /// A flame graph to draw at the end.
    pub flamegraph: Option<FlamegraphSettings>,
}

/// Format of the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people: a live table, findings as they arise, a report at the end.
    #[default]
    Text,
    /// One document at the end.
    Json,
    /// One event a line, live, and the report as the last line.
    Ndjson,
}

/// Metrics for Prometheus.
#[derive(Clone, Debug)]
pub struct MetricsSettings {
    /// Where they are served.
    pub address: ListenAddress,
    /// Labels of every metric.
    pub labels: Vec<Label>,
    /// How often they change.
    pub interval: Duration,
}

/// A flame graph in a file.
#[derive(Clone, Debug)]
pub struct FlamegraphSettings {
    /// The SVG file; it is overwritten.
    pub file: PathBuf,
    /// Which stack of each connection it shows.
    pub by: By,
}
