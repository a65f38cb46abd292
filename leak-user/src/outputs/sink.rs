//! What an output is.

use std::io;

use crate::engine::Beginning;
use crate::engine::findings::Change;
use crate::engine::snapshot::Snapshot;
use crate::model::{Fact, IntervalCost, Timestamp};

/// An output. Whatever one does not care about it need not implement.
pub trait Sink {
    /// The run begins.
    ///
    /// # Errors
    ///
    /// When the output cannot be written.
    fn begin(&mut self, beginning: &Beginning) -> Result<(), OutputError> {
        let _ = beginning;
        Ok(())
    }

    /// A fact becomes known `now`: the engine takes it next.
    ///
    /// # Errors
    ///
    /// When the output cannot be written.
    fn fact(&mut self, now: Timestamp, fact: &Fact) -> Result<(), OutputError> {
        let _ = (now, fact);
        Ok(())
    }

    /// An interval is over, and was judged.
    ///
    /// # Errors
    ///
    /// When the output cannot be written.
    fn interval(&mut self, snapshot: &Snapshot<'_>, changes: &[Change]) -> Result<(), OutputError> {
        let _ = (snapshot, changes);
        Ok(())
    }

    /// The run is over, and was judged for the last time.
    ///
    /// # Errors
    ///
    /// When the output cannot be written.
    fn end(&mut self, snapshot: &Snapshot<'_>, changes: &[Change]) -> Result<(), OutputError> {
        let _ = (snapshot, changes);
        Ok(())
    }

    /// What an interval has cost the tracer. A replay has no such figures.
    ///
    /// # Errors
    ///
    /// When the output cannot be written.
    fn interval_cost(&mut self, now: Timestamp, cost: &IntervalCost) -> Result<(), OutputError> {
        let _ = (now, cost);
        Ok(())
    }

    /// The event loop is at work: it says so about twice a second. A replay does not.
    fn alive(&mut self, now: Timestamp) {
        let _ = now;
    }

    /// Shows what was written so far to whoever reads along.
    ///
    /// # Errors
    ///
    /// When the output cannot be written.
    fn flush(&mut self) -> Result<(), OutputError> {
        Ok(())
    }
}

/// Why an output cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// What is printed.
    #[error(transparent)]
    Stdout(#[from] io::Error),
    /// Another output, which says which one it is.
    #[error(transparent)]
    Other(Box<dyn std::error::Error + Send + Sync>),
}

impl OutputError {
    /// Wraps the error of an output that is not printed.
    pub fn other(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Other(Box::new(error))
    }

    /// Whether whoever read stdout has closed it: there is nobody left to tell.
    #[must_use]
    pub fn reader_has_gone(&self) -> bool {
        matches!(self, Self::Stdout(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}
