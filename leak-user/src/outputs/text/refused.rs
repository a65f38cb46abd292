//! Connections that the server refused: by them the victims of a leak know it.

use std::io;

use crate::engine::detect::plural;
use crate::engine::snapshot::Snapshot;
use crate::outputs::text::style::{Paint, Tone, printable};

/// Most processes with refusals that are told.
const MAX_LINES: usize = 20;

/// One line for each process and reason, the most refusals first.
pub(super) fn write(
    out: &mut impl io::Write,
    paint: Paint,
    snapshot: &Snapshot<'_>,
) -> io::Result<()> {
    let mut refused: Vec<_> = snapshot
        .table
        .processes()
        .flat_map(|(key, tally)| tally.refused.iter().map(move |(code, &count)| (count, key, code)))
        .collect();
    refused.sort_unstable_by(|a, b| (b.0, a.1, a.2).cmp(&(a.0, b.1, b.2)));
    for (count, key, sqlstate) in refused.into_iter().take(MAX_LINES) {
        let comm = snapshot.comm(key).map_or_else(|| "?".to_owned(), printable);
        let connections = plural(usize::try_from(count).unwrap_or(usize::MAX), "connection");
        let why = meaning(sqlstate)
            .map_or_else(|| format!("SQLSTATE {sqlstate}"), |why| format!("{why} ({sqlstate})"));
        let line = format!("the server refused {connections} of {comm} ({}): {why}", key.pid);
        writeln!(out, "{}", paint.tone(Tone::Suspect, &line))?;
    }
    Ok(())
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
