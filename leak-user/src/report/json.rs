//! One JSON document at the end.

use std::io;

use crate::report::Snapshot;
use crate::report::model::Report;

/// Writes the whole report as one document.
///
/// # Errors
/// What `out` returns.
pub fn write(out: &mut impl io::Write, snapshot: &Snapshot<'_>) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, &Report::new(snapshot))?;
    writeln!(out)
}
