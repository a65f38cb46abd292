//! Connections that the server refused: by them the victims of a leak know it.

use crate::engine::detect::plural;
use crate::engine::snapshot::Snapshot;
use crate::outputs::text::note::Note;
use crate::outputs::text::phrase;
use crate::outputs::text::style::printable;

/// Most processes with refusals that are told.
const MAX_LINES: usize = 20;

/// One line for each process and reason, the most refusals first.
pub(super) fn notes(snapshot: &Snapshot<'_>) -> Vec<Note> {
    let mut refused: Vec<_> = snapshot
        .table
        .processes()
        .flat_map(|(key, tally)| tally.refused.iter().map(move |(code, &count)| (count, key, code)))
        .collect();
    refused.sort_unstable_by(|a, b| (b.0, a.1, a.2).cmp(&(a.0, b.1, b.2)));
    let note = |(count, process, sqlstate): (u64, _, &String)| {
        let connections = plural(usize::try_from(count).unwrap_or(usize::MAX), "connection");
        let why = meaning(sqlstate).map_or_else(
            || format!("SQLSTATE {}", printable(sqlstate)),
            |why| format!("{why} ({sqlstate})"),
        );
        let who = phrase::process(snapshot, process);
        let text = format!("the server refused {connections} of {who}: {why}");
        // Each refusal more is news.
        Note { label: "REFUSED", key: text.clone(), text, alarms: true }
    };
    refused.into_iter().take(MAX_LINES).map(note).collect()
}

/// What an SQLSTATE says of a startup. Source: PostgreSQL's documentation, "Error Codes".
fn meaning(sqlstate: &str) -> Option<&'static str> {
    Some(match sqlstate {
        "53300" => "too many clients",
        "53000" | "53100" | "53200" | "53400" => "out of resources",
        "57P03" => "it is starting up, shutting down or recovering",
        "57P01" | "57P02" => "it is shutting down",
        "28000" => "not allowed to connect",
        "28P01" => "wrong password",
        "3D000" => "no such database",
        _ => return None,
    })
}
