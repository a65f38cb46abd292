//! The text as an output.

use std::io::{BufWriter, Write};

use crate::engine::findings::Change;
use crate::engine::snapshot::Snapshot;
use crate::outputs::text::{Paint, write_interval, write_report};
use crate::outputs::{OutputError, Sink};

/// Prints text for people.
pub struct Text<W: Write> {
    out: BufWriter<W>,
    paint: Paint,
    only_report: bool,
}

impl<W: Write> Text<W> {
    /// Prints to `out`; nothing before the end with `only_report`.
    pub fn new(out: W, paint: Paint, only_report: bool) -> Self {
        Self { out: BufWriter::new(out), paint, only_report }
    }
}

impl<W: Write> Sink for Text<W> {
    fn interval(&mut self, snapshot: &Snapshot<'_>, changes: &[Change]) -> Result<(), OutputError> {
        if self.only_report {
            return Ok(());
        }
        write_interval(&mut self.out, self.paint, snapshot, changes)?;
        Ok(self.out.flush()?)
    }

    fn end(&mut self, snapshot: &Snapshot<'_>, _: &[Change]) -> Result<(), OutputError> {
        write_report(&mut self.out, self.paint, snapshot)?;
        Ok(self.out.flush()?)
    }
}
