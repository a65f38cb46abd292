//! What is told besides the report: metrics and a picture.

use anyhow::Context as _;

use crate::cli::TraceArgs;
use crate::engine::Engine;
use crate::engine::snapshot::EventCounts;
use crate::model::Timestamp;
use crate::outputs::flamegraph::{By, File, Flames};
use crate::outputs::prometheus::{Exporter, Tracing};

/// Those that were asked for.
pub(super) struct Outlets {
    exporter: Option<Exporter>,
    picture: Option<(File, By)>,
}

impl Outlets {
    /// Makes sure of them before the trace begins.
    ///
    /// # Errors
    ///
    /// When metrics cannot be served where they were asked for, or the picture cannot be written.
    pub(super) fn open(args: &TraceArgs) -> anyhow::Result<Self> {
        let picture = &args.picture;
        let file = picture.flamegraph.as_deref().map(File::prepare).transpose()?;
        let start = |address| Exporter::start(address, &args.label, args.interval);
        let exporter = args.metrics_addr.map(start).transpose()?;
        if let Some(exporter) = &exporter {
            log::info!("serving metrics at http://{}/metrics", exporter.address());
        }
        Ok(Self { exporter, picture: file.map(|file| (file, picture.flamegraph_by)) })
    }

    /// The event loop has turned.
    pub(super) fn turned(&self, now: Timestamp) {
        if let Some(exporter) = &self.exporter {
            exporter.turned(now);
        }
    }

    /// An interval is over. `tracing` is asked only when somebody wants to know.
    pub(super) fn publish(
        &mut self,
        engine: &Engine,
        counts: EventCounts,
        now: Timestamp,
        tracing: impl FnOnce() -> Tracing,
    ) {
        if let Some(exporter) = &mut self.exporter {
            exporter.publish(&engine.snapshot(counts, now, false), tracing());
        }
    }

    /// The trace is over.
    ///
    /// # Errors
    ///
    /// When the picture cannot be written after all.
    pub(super) fn finish(
        &self,
        engine: &Engine,
        counts: EventCounts,
        now: Timestamp,
    ) -> anyhow::Result<()> {
        if let Some((file, by)) = &self.picture {
            let flames = Flames::of(&engine.snapshot(counts, now, true), *by);
            file.write(&flames.svg()).context("the trace has no picture")?;
        }
        Ok(())
    }
}
