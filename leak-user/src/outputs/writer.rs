//! Where the report goes, in the format that was asked for.

use std::io::{self, BufWriter, IsTerminal, Write};

use crate::cli;
use crate::engine::findings::Change;
use crate::engine::snapshot::Snapshot;
use crate::model::Event;
use crate::model::clock::Clock;
use crate::outputs::text::Paint;
use crate::outputs::{json, ndjson, text};

/// Writes what there is to tell, when it is time to.
pub struct Output {
    format: cli::Output,
    paint: Paint,
    out: BufWriter<Box<dyn Write>>,
}

impl Output {
    /// Writes to stdout, with colours where that is a terminal.
    #[must_use]
    pub fn to_stdout(format: cli::Output) -> Self {
        let stdout = io::stdout();
        Self { paint: Paint::new(stdout.is_terminal()), ..Self::to(format, Box::new(stdout)) }
    }

    /// Writes without colours to `out`.
    #[must_use]
    pub fn to(format: cli::Output, out: Box<dyn Write>) -> Self {
        Self { format, paint: Paint::new(false), out: BufWriter::new(out) }
    }

    /// Something happened to a connection.
    pub(crate) fn event(&mut self, event: &Event, clock: &Clock) -> io::Result<()> {
        if self.format == cli::Output::Ndjson {
            ndjson::write_event(&mut self.out, event, clock)?;
        }
        Ok(())
    }

    /// Makes visible what was written so far: a reader waits for it.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// The table was judged.
    pub(crate) fn interval(
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
    pub(crate) fn report(&mut self, snapshot: &Snapshot<'_>, changes: &[Change]) -> io::Result<()> {
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
