//! The outputs of a run.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use crate::engine::Beginning;
use crate::engine::findings::Change;
use crate::engine::snapshot::Snapshot;
use crate::model::{Fact, IntervalCost, Timestamp};
use crate::outputs::ci::{Annotations, CiSettings, Junit};
use crate::outputs::flamegraph::Flamegraph;
use crate::outputs::json::Json;
use crate::outputs::learnt::LearntFile;
use crate::outputs::ndjson::Ndjson;
use crate::outputs::printer::{PrintProgress, Printer};
use crate::outputs::prometheus::Exporter;
use crate::outputs::recording::RecordingSink;
use crate::outputs::text::Text;
use crate::outputs::{Format, OutputError, OutputSettings, PrintTo, Printed, Sink};

/// All outputs of a run, fed alike.
///
/// When one of them fails, the others are fed all the same; the first error is returned.
#[derive(Default)]
pub struct Sinks {
    sinks: Vec<Box<dyn Sink>>,
    /// How far printing apart has come.
    progress: Option<PrintProgress>,
}

/// Who waits for whoever reads what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Printing {
    /// The run does.
    AtOnce,
    /// A thread of its own; the run goes on.
    Apart,
}

impl Sinks {
    /// Opens the outputs that were asked for: better now than after an hour of tracing.
    ///
    /// # Errors
    ///
    /// When one cannot be written or served where it was asked for.
    pub fn open(settings: &OutputSettings, printing: Printing) -> Result<Self, OutputError> {
        let OutputSettings { format, printed, record, learn, metrics, flamegraph, ci } = settings;
        let mut sinks = Self::default();
        match &printed.to {
            PrintTo::Stdout => sinks.print(*format, io::stdout(), printed, printing)?,
            PrintTo::Stderr => sinks.print(*format, io::stderr(), printed, printing)?,
            PrintTo::File(path) => {
                let unwritable = |source| ReportError { path: path.clone(), source };
                let file = File::create(path).map_err(unwritable).map_err(OutputError::other)?;
                sinks.print(*format, file, printed, printing)?;
            }
            PrintTo::Nowhere => {}
        }
        let CiSettings { junit, annotations, baseline } = ci;
        sinks.add(junit.as_ref().map(|path| Junit::create(path, baseline.clone())).transpose()?);
        let checkout = || std::env::var_os("GITHUB_WORKSPACE").map(PathBuf::from);
        sinks
            .add(annotations.then(|| Annotations::new(io::stderr(), baseline.clone(), checkout())));
        sinks.add(flamegraph.as_ref().map(Flamegraph::prepare).transpose()?);
        sinks.add(learn.as_deref().map(LearntFile::prepare).transpose()?);
        sinks.add(metrics.as_ref().map(Exporter::start).transpose()?);
        sinks.add(record.as_deref().map(RecordingSink::new));
        Ok(sinks)
    }

    /// Only what is printed, without colours, to `out`.
    #[must_use]
    pub fn to(format: Format, out: impl io::Write + 'static) -> Self {
        let sinks = vec![print(format, out, &Printed::default())];
        Self { sinks, progress: None }
    }

    fn print(
        &mut self,
        format: Format,
        out: impl io::Write + Send + 'static,
        printed: &Printed,
        printing: Printing,
    ) -> Result<(), OutputError> {
        let sink = match printing {
            Printing::AtOnce => print(format, out, printed),
            Printing::Apart => {
                let (printer, progress) = Printer::start(out)?;
                self.progress = Some(progress);
                print(format, printer, printed)
            }
        };
        self.sinks.push(sink);
        Ok(())
    }

    /// Waits until everything is printed, however long the reader takes.
    ///
    /// # Errors
    ///
    /// When it cannot be printed.
    pub(crate) async fn printed(&mut self) -> Result<(), OutputError> {
        match &mut self.progress {
            Some(progress) => Ok(progress.wait().await?),
            None => Ok(()),
        }
    }

    /// Feeds one more output, if there is one.
    pub(crate) fn add(&mut self, sink: Option<impl Sink + 'static>) {
        self.sinks.extend(sink.map(|sink| Box::new(sink) as Box<dyn Sink>));
    }

    fn each(
        &mut self,
        mut feed: impl FnMut(&mut dyn Sink) -> Result<(), OutputError>,
    ) -> Result<(), OutputError> {
        let mut result = Ok(());
        for sink in &mut self.sinks {
            result = result.and(feed(sink.as_mut()));
        }
        result
    }
}

impl Sink for Sinks {
    fn begin(&mut self, beginning: &Beginning) -> Result<(), OutputError> {
        self.each(|sink| sink.begin(beginning))
    }

    fn fact(&mut self, now: Timestamp, fact: &Fact) -> Result<(), OutputError> {
        self.each(|sink| sink.fact(now, fact))
    }

    fn interval(&mut self, snapshot: &Snapshot<'_>, changes: &[Change]) -> Result<(), OutputError> {
        self.each(|sink| sink.interval(snapshot, changes))
    }

    fn end(&mut self, snapshot: &Snapshot<'_>, changes: &[Change]) -> Result<(), OutputError> {
        self.each(|sink| sink.end(snapshot, changes))
    }

    fn interval_cost(&mut self, now: Timestamp, cost: &IntervalCost) -> Result<(), OutputError> {
        self.each(|sink| sink.interval_cost(now, cost))
    }

    fn alive(&mut self, now: Timestamp) {
        self.sinks.iter_mut().for_each(|sink| sink.alive(now));
    }

    fn flush(&mut self) -> Result<(), OutputError> {
        self.each(|sink| sink.flush())
    }
}

/// Why the report cannot be written into its file.
#[derive(Debug, thiserror::Error)]
#[error("the report cannot be written to {path}: {source}")]
struct ReportError {
    path: PathBuf,
    source: io::Error,
}

fn print(format: Format, out: impl io::Write + 'static, printed: &Printed) -> Box<dyn Sink> {
    let &Printed { to: _, only_report, look, ref events } = printed;
    match format {
        Format::Text => Box::new(Text::new(out, look, only_report)),
        Format::Json => Box::new(Json::new(out)),
        Format::Ndjson => Box::new(Ndjson::new(out, events.clone())),
    }
}
