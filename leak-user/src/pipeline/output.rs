//! Where the report goes: stdout, in the format that was asked for.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use crate::cli;
use crate::event::Event;
use crate::findings::Change;
use crate::report::text::Paint;
use crate::report::{Clock, Snapshot, json, ndjson, text};

/// Writes what there is to tell, when it is time to.
pub(super) struct Output {
    format: cli::Output,
    paint: Paint,
    clock: Clock,
    out: BufWriter<Stdout>,
}

impl Output {
    pub(super) fn new(format: cli::Output, clock: Clock) -> Self {
        let stdout = io::stdout();
        let paint = Paint::new(stdout.is_terminal());
        Self { format, paint, clock, out: BufWriter::new(stdout) }
    }

    /// Something happened to a connection.
    pub(super) fn event(&mut self, event: &Event) -> io::Result<()> {
        if self.format == cli::Output::Ndjson {
            ndjson::write_event(&mut self.out, event, &self.clock)?;
        }
        Ok(())
    }

    /// Makes visible what was written so far: a reader waits for it.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// The table was judged.
    pub(super) fn interval(
        &mut self,
        snapshot: &Snapshot<'_>,
        changes: &[Change],
    ) -> io::Result<()> {
        match self.format {
            cli::Output::Text => {
                text::write_interval(&mut self.out, self.paint, snapshot, changes)?;
            }
            cli::Output::Ndjson => self.changes(snapshot, changes)?,
            cli::Output::Json => {}
        }
        self.flush()
    }

    /// The trace has ended, with these last changes.
    pub(super) fn report(&mut self, snapshot: &Snapshot<'_>, changes: &[Change]) -> io::Result<()> {
        match self.format {
            cli::Output::Text => text::write_report(&mut self.out, self.paint, snapshot)?,
            cli::Output::Json => json::write(&mut self.out, snapshot)?,
            cli::Output::Ndjson => {
                self.changes(snapshot, changes)?;
                ndjson::write_report(&mut self.out, snapshot)?;
            }
        }
        self.flush()
    }

    fn changes(&mut self, snapshot: &Snapshot<'_>, changes: &[Change]) -> io::Result<()> {
        changes.iter().try_for_each(|change| ndjson::write_change(&mut self.out, change, snapshot))
    }
}
