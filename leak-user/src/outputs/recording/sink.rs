//! The recording as an output.

use std::io;
use std::path::{Path, PathBuf};

use crate::engine::Beginning;
use crate::engine::findings::Change;
use crate::engine::snapshot::Snapshot;
use crate::model::{Fact, Timestamp};
use crate::outputs::recording::Recorder;
use crate::outputs::{OutputError, Sink};

/// Why nothing can be recorded.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be written", path.display())]
struct CreateError {
    path: PathBuf,
    source: io::Error,
}

/// Records the facts of a run.
pub struct RecordingSink {
    path: PathBuf,
    /// `None` before the run begins, and after it has ended.
    recorder: Option<Recorder>,
}

impl RecordingSink {
    /// Records to `path`. The file is made when the run begins.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), recorder: None }
    }
}

impl Sink for RecordingSink {
    fn begin(&mut self, beginning: &Beginning) -> Result<(), OutputError> {
        let created = Recorder::create(&self.path, beginning);
        let failed = |source| CreateError { path: self.path.clone(), source };
        self.recorder = Some(created.map_err(failed).map_err(OutputError::other)?);
        Ok(())
    }

    fn fact(&mut self, now: Timestamp, fact: &Fact) -> Result<(), OutputError> {
        if let Some(recorder) = &mut self.recorder {
            recorder.record(now, fact);
        }
        Ok(())
    }

    fn end(&mut self, _: &Snapshot<'_>, _: &[Change]) -> Result<(), OutputError> {
        if let Some(recorder) = self.recorder.take() {
            recorder.finish();
        }
        Ok(())
    }

    fn alive(&mut self, now: Timestamp) {
        if let Some(recorder) = &mut self.recorder {
            recorder.flush_if_due(now);
        }
    }
}
