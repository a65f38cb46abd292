//! The document as an output.

use std::io::{BufWriter, Write};

use crate::engine::findings::Change;
use crate::engine::snapshot::Snapshot;
use crate::outputs::json::write;
use crate::outputs::{OutputError, Sink};

/// Prints one JSON document when the run is over.
pub struct Json<W: Write> {
    out: BufWriter<W>,
}

impl<W: Write> Json<W> {
    /// Prints to `out`.
    pub fn new(out: W) -> Self {
        Self { out: BufWriter::new(out) }
    }
}

impl<W: Write> Sink for Json<W> {
    fn end(&mut self, snapshot: &Snapshot<'_>, _: &[Change]) -> Result<(), OutputError> {
        write(&mut self.out, snapshot)?;
        Ok(self.out.flush()?)
    }
}
