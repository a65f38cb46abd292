//! The outputs of a run.

use std::io::{self, IsTerminal as _};

use crate::engine::Beginning;
use crate::engine::findings::Change;
use crate::engine::snapshot::Snapshot;
use crate::model::{Fact, IntervalCost, Timestamp};
use crate::outputs::flamegraph::Flamegraph;
use crate::outputs::json::Json;
use crate::outputs::ndjson::Ndjson;
use crate::outputs::printer::{PrintProgress, Printer};
use crate::outputs::prometheus::Exporter;
use crate::outputs::recording::RecordingSink;
use crate::outputs::text::{Paint, Text};
use crate::outputs::{Format, OutputError, OutputSettings, Sink};

/// All outputs of a run, fed alike.
///
/// When one of them fails, the others are fed all the same; the first error is returned.
#[derive(Default)]
pub struct Sinks {
    sinks: Vec<Box<dyn Sink>>,
    /// How far printing to stdout has come.
    printed: Option<PrintProgress>,
}

impl Sinks {
    /// Opens the outputs that were asked for: better now than after an hour of tracing.
    ///
    /// # Errors
    ///
    /// When one cannot be written or served where it was asked for.
    pub fn open(settings: &OutputSettings) -> Result<Self, OutputError> {
        let OutputSettings { format, record, metrics, flamegraph } = settings;
        let (printer, printed) = Printer::start(io::stdout())?;
        let text = print(*format, printer, Paint::new(io::stdout().is_terminal()));
        let mut sinks = Self { sinks: vec![text], printed: Some(printed) };
        sinks.add(flamegraph.as_ref().map(Flamegraph::prepare).transpose()?);
        sinks.add(metrics.as_ref().map(Exporter::start).transpose()?);
        sinks.add(record.as_deref().map(RecordingSink::new));
        Ok(sinks)
    }

    /// Only what is printed, without colours, to `out`.
    #[must_use]
    pub fn to(format: Format, out: impl io::Write + 'static) -> Self {
        Self { sinks: vec![print(format, out, Paint::new(false))], printed: None }
    }

    /// Waits until everything is printed, however long the reader takes.
    ///
    /// # Errors
    ///
    /// When it cannot be printed.
    pub(crate) async fn printed(&mut self) -> Result<(), OutputError> {
        match &mut self.printed {
            Some(printed) => Ok(printed.wait().await?),
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

fn print(format: Format, out: impl io::Write + 'static, paint: Paint) -> Box<dyn Sink> {
    match format {
        Format::Text => Box::new(Text::new(out, paint)),
        Format::Json => Box::new(Json::new(out)),
        Format::Ndjson => Box::new(Ndjson::new(out)),
    }
}
