//! One JSON document at the end.

pub(super) mod model;
pub(super) mod schema;
mod sink;

use std::io;

pub use sink::Json;

use crate::engine::snapshot::Snapshot;
use crate::outputs::json::model::Report;

/// Writes the whole report as one document.
///
/// # Errors
/// What `out` returns.
pub fn write(out: &mut impl io::Write, snapshot: &Snapshot<'_>) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, &Report::new(snapshot))?;
    writeln!(out)
}

/// Writes the report's JSON schema.
///
/// # Errors
/// What `out` returns.
pub fn write_schema(out: &mut impl io::Write) -> io::Result<()> {
    schema::write::<Report<'_>>(out)
}
