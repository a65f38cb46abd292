//! Connections that are older than the trace and may be lost or at rest.

use std::collections::BTreeMap;

use crate::engine::detect::{Span, plural};
use crate::engine::snapshot::Snapshot;
use crate::outputs::text::note::Note;
use crate::outputs::text::phrase;

/// Most processes that are told.
const MAX_LINES: usize = 10;

/// One line for each process that has such connections and keeps them silent, and what would tell
/// more.
pub(super) fn notes(snapshot: &Snapshot<'_>) -> Vec<Note> {
    let mut silences: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for connection in snapshot.unknown_older() {
        let silence = connection.silent_for(snapshot.now);
        silences.entry(connection.process).or_default().push(silence);
    }
    let more = silences.len().saturating_sub(MAX_LINES);
    let mut all: Vec<_> = silences.into_iter().collect();
    all.sort_by_key(|(process, silences)| (std::cmp::Reverse(silences.len()), *process));
    let asked = !snapshot.table.servers().is_empty();
    let unknown = if asked {
        "idle or unknown, so lost or at rest: used again, they will tell"
    } else {
        "state and code unknown until used again; --pg-dsn tells state and last statement at once"
    };
    let mut notes: Vec<_> = all
        .into_iter()
        .take(MAX_LINES)
        .map(|(process, silences)| {
            let count = plural(silences.len(), "connection");
            let who = phrase::process(snapshot, process);
            let silence: Span = silences.into_iter().collect();
            let text = format!(
                "{count} of {who} opened before the trace and silent for {silence}: {unknown}"
            );
            Note { label: "OLDER", text, key: format!("older {}", process.pid), alarms: true }
        })
        .collect();
    if more > 0 {
        let text = format!("… and those of {more} more processes");
        notes.push(Note { label: "OLDER", text, key: "older, more".into(), alarms: true });
    }
    notes
}
