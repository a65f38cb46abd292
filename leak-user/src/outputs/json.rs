//! One JSON document at the end.

pub(super) mod model;
pub(super) mod schema;
mod sink;

use std::io;

pub use sink::Json;

use crate::engine::snapshot::Snapshot;
use crate::outputs::json::model::{Listing, Report};

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

/// Writes what `pgsocktrace ls` has found; `complete` says whether everything could be read.
///
/// # Errors
/// What `out` returns.
pub fn write_listing(
    out: &mut impl io::Write,
    snapshot: &Snapshot<'_>,
    complete: bool,
) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, &Listing::new(snapshot, complete))?;
    writeln!(out)
}

/// Writes the JSON schema of what `pgsocktrace ls` prints.
///
/// # Errors
/// What `out` returns.
pub fn write_listing_schema(out: &mut impl io::Write) -> io::Result<()> {
    schema::write::<Listing<'_>>(out)
}
