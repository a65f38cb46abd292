//! The flame graph as an output.

use crate::engine::findings::Change;
use crate::engine::snapshot::Snapshot;
use crate::outputs::flamegraph::{By, Flames};
use crate::outputs::whole_file::WholeFile;
use crate::outputs::{FlamegraphSettings, OutputError, Sink};

/// Draws the connections that are open at the end into a file.
pub struct Flamegraph {
    file: WholeFile,
    by: By,
}

impl Flamegraph {
    /// Makes sure that the file can be written.
    ///
    /// # Errors
    ///
    /// When it cannot.
    pub fn prepare(settings: &FlamegraphSettings) -> Result<Self, OutputError> {
        let file =
            WholeFile::prepare("the flame graph", &settings.file).map_err(OutputError::other)?;
        Ok(Self { file, by: settings.by })
    }
}

impl Sink for Flamegraph {
    fn end(&mut self, snapshot: &Snapshot<'_>, _: &[Change]) -> Result<(), OutputError> {
        let svg = Flames::of(snapshot, self.by).svg();
        self.file.write(&svg).map_err(OutputError::other)
    }
}
