//! What is held now: shown before anything is judged, and not an accusation.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use crate::engine::detect::{Span, plural};
use crate::engine::snapshot::Snapshot;
use crate::engine::table::Connection;
use crate::model::{ConnectionId, ProcessKey};
use crate::outputs::text::look::Look;
use crate::outputs::text::note::Note;
use crate::outputs::text::phrase;
use crate::outputs::text::place::place;

/// From when on what is held is worth a line, unless less counts as silent.
const HELD_AFTER: Duration = Duration::from_secs(5);
/// Most lines.
const MAX_LINES: usize = 8;

/// How a connection is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Held {
    InTransaction,
    Busy,
}

/// One line for each process, code and way of holding, the most connections first.
pub(super) fn notes(snapshot: &Snapshot<'_>, look: &Look) -> Vec<Note> {
    let told: HashSet<ConnectionId> = snapshot
        .ledger
        .open()
        .into_iter()
        .flat_map(|finding| finding.verdict.connections.iter().copied())
        .collect();
    let mut groups: BTreeMap<(ProcessKey, Held, String), Vec<Duration>> = BTreeMap::new();
    for connection in snapshot.table.connections() {
        let Some(held) = held(snapshot, connection) else { continue };
        if !told.contains(&connection.id) {
            let code = code(snapshot, look, connection);
            let silence = connection.silent_for(snapshot.now);
            groups.entry((connection.process, held, code)).or_default().push(silence);
        }
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, silences)| std::cmp::Reverse(silences.len()));
    groups.truncate(MAX_LINES);
    let note = |((process, held, code), silences): ((ProcessKey, Held, String), Vec<_>)| {
        let count = plural(silences.len(), "connection");
        let silence: Span = silences.into_iter().collect();
        let who = phrase::process(snapshot, process);
        let state = match held {
            Held::InTransaction => "in a transaction",
            Held::Busy => "busy",
        };
        let key = format!("held {} {held:?} {code}", process.pid);
        let text = format!("{count} of {who} {state} for {silence}, {code}; not judged yet");
        Note { label: "HELD", text, key, alarms: false }
    };
    groups.into_iter().map(note).collect()
}

/// In which way it is held, long enough to be told and not long enough to be judged. What is judged
/// is told, or counted, with what it is accused of.
fn held(snapshot: &Snapshot<'_>, connection: &Connection) -> Option<Held> {
    let (thresholds, silence) = (snapshot.thresholds, connection.silent_for(snapshot.now));
    if silence < HELD_AFTER.min(thresholds.silent_after / 2) {
        return None;
    }
    if connection.is_in_transaction() {
        return (silence < thresholds.idle_in_transaction_after()).then_some(Held::InTransaction);
    }
    (connection.is_busy() && silence < thresholds.silent_after).then_some(Held::Busy)
}

/// The code that used it last, in words.
fn code(snapshot: &Snapshot<'_>, look: &Look, connection: &Connection) -> String {
    let Some(stack) = snapshot.stack(connection.callers.last_used_by.as_ref()) else {
        return "code not known yet".to_owned();
    };
    match stack.culprit.and_then(|culprit| stack.frames.get(culprit)) {
        Some(frame) => format!("used by {}", place(frame, look)),
        None => "by code without names".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::WireState;
    use crate::outputs::testing::Run;

    #[test]
    fn what_is_held_is_told_from_five_seconds_on_until_it_is_judged() {
        let mut run = Run::new();
        run.world.request(1, 200.0, "leak", WireState::InTransaction);
        run.world.request(2, 201.0, "leak", WireState::InTransaction);
        run.world.request(3, 190.0, "work", WireState::Busy);
        let told = |at: f64| {
            let notes = notes(&run.snapshot(at), &Look::default());
            notes.into_iter().map(|note| note.text).collect::<Vec<_>>()
        };
        let busy = |age| {
            let shop = "shop\\u{1b}[2J (4242)";
            format!("1 connection of {shop} busy for {age}, code not known yet; not judged yet")
        };
        assert_eq!(told(204.0), [busy("14 s")]);
        let in_transaction = "2 connections of shop\\u{1b}[2J (4242) in a transaction for 5.9-6.9 s, used \
                              by app::report src/report.go:41; not judged yet";
        assert_eq!(told(207.0), [in_transaction.to_owned(), busy("17 s")]);
        assert_eq!(told(220.0), [busy("30 s")], "what is old enough is judged");
        assert_eq!(told(260.0), [""; 0]);
    }
}
