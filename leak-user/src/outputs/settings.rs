//! Which outputs there are to be.

use std::path::PathBuf;
use std::time::Duration;

use crate::outputs::ci::CiSettings;
use crate::outputs::flamegraph::By;
use crate::outputs::ndjson::Events;
use crate::outputs::prometheus::{Label, ListenAddress};
use crate::outputs::text::Look;

/// The outputs of a run.
#[derive(Clone, Debug, Default)]
pub struct OutputSettings {
    /// In which format it is printed.
    pub format: Format,
    /// Where and how it is printed.
    pub printed: Printed,
    /// A recording to write.
    pub record: Option<PathBuf>,
    /// A file that keeps what was learnt about who sends which statement.
    pub learn: Option<PathBuf>,
    /// Metrics to serve.
    pub metrics: Option<MetricsSettings>,
    /// A flame graph to draw at the end.
    pub flamegraph: Option<FlamegraphSettings>,
    /// What continuous integration reads.
    pub ci: CiSettings,
}

/// Where and how a report is printed.
#[derive(Clone, Debug, Default)]
pub struct Printed {
    /// Where.
    pub to: PrintTo,
    /// Only the report at the end, when it is text.
    pub only_report: bool,
    /// What text looks like.
    pub look: Look,
    /// Which kinds of lines of NDJSON.
    pub events: Events,
}

/// Where a report is printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PrintTo {
    /// Where those of other programs are.
    #[default]
    Stdout,
    /// Beside the output of the traced command.
    Stderr,
    /// Into this file, which is overwritten.
    File(PathBuf),
    /// Nowhere.
    Nowhere,
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
