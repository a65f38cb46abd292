//! Connections that are older than the trace and of which nothing is known.

use std::collections::BTreeMap;
use std::io;

use crate::engine::detect::{Span, plural};
use crate::engine::snapshot::Snapshot;
use crate::outputs::text::style::{Paint, Tone, printable};

/// Most processes that are told.
const MAX_LINES: usize = 10;

/// One line for each process that has such connections and keeps them silent, and one line that
/// says what would tell more.
pub(super) fn write(
    out: &mut impl io::Write,
    paint: Paint,
    snapshot: &Snapshot<'_>,
) -> io::Result<()> {
    let mut silences: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for connection in snapshot.unknown_older() {
        let silence = connection.silent_for(snapshot.now);
        silences.entry(connection.process).or_default().push(silence);
    }
    if silences.is_empty() {
        return Ok(());
    }
    let more = silences.len().saturating_sub(MAX_LINES);
    let mut all: Vec<_> = silences.into_iter().collect();
    all.sort_by_key(|(process, silences)| (std::cmp::Reverse(silences.len()), *process));
    for (process, silences) in all.into_iter().take(MAX_LINES) {
        let comm = snapshot.comm(process).map_or_else(|| "?".to_owned(), printable);
        let count = plural(silences.len(), "connection");
        let silence: Span = silences.into_iter().collect();
        let line = format!(
            "{count} of {comm} ({}) are older than the trace and silent for {silence}: state and \
             code are unknown until they are used",
            process.pid
        );
        writeln!(out, "{}", paint.tone(Tone::Suspect, &line))?;
    }
    if more > 0 {
        writeln!(out, "… and those of {more} more processes")?;
    }
    let asked = !snapshot.table.servers().is_empty();
    let hint = "--pg-dsn asks the server for their state and last statement at once";
    if asked { Ok(()) } else { writeln!(out, "{}", paint.tone(Tone::Dim, hint)) }
}
