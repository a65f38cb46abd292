//! The text as an output.

use std::io::{BufWriter, Write};

use crate::engine::findings::Change;
use crate::engine::snapshot::Snapshot;
use crate::outputs::text::journal::Journal;
use crate::outputs::text::{Look, live, write_report};
use crate::outputs::{OutputError, Sink};

/// Prints text for people.
pub struct Text<W: Write> {
    out: BufWriter<W>,
    look: Look,
    only_report: bool,
    journal: Journal,
    /// Something is drawn that the next drawing replaces.
    is_drawn: bool,
}

impl<W: Write> Text<W> {
    /// Prints to `out`; nothing before the end with `only_report`.
    pub fn new(out: W, look: Look, only_report: bool) -> Self {
        let (out, journal) = (BufWriter::new(out), Journal::default());
        Self { out, look, only_report, journal, is_drawn: false }
    }
}

impl<W: Write> Sink for Text<W> {
    fn interval(&mut self, snapshot: &Snapshot<'_>, changes: &[Change]) -> Result<(), OutputError> {
        if self.only_report {
            return Ok(());
        }
        match self.look.height() {
            Some(height) => {
                live::draw(&mut self.out, &self.look, snapshot, height)?;
                self.is_drawn = true;
            }
            None => self.journal.write(&mut self.out, &self.look, snapshot, changes)?,
        }
        Ok(self.out.flush()?)
    }

    fn end(&mut self, snapshot: &Snapshot<'_>, _: &[Change]) -> Result<(), OutputError> {
        if self.is_drawn {
            live::clear(&mut self.out)?;
        } else if !self.only_report {
            writeln!(self.out)?;
        }
        write_report(&mut self.out, &self.look, snapshot)?;
        Ok(self.out.flush()?)
    }
}
