//! The server's sessions of a finding's connections: who they are and what they did last, as the
//! wire and the server itself tell it.

use std::collections::BTreeMap;
use std::io;

use crate::engine::detect::Span;
use crate::engine::findings::Finding;
use crate::engine::snapshot::Snapshot;
use crate::engine::table::Connection;
use crate::model::server::Session;
use crate::outputs::text::style::printable;

/// Most statements, and most names of one kind, that are shown.
const MAX_VALUES: usize = 3;
/// Most backends that are shown.
const MAX_BACKENDS: usize = 8;
/// The wait event of a session that waits for its client.
const CLIENT_READ: &str = "ClientRead";

/// Writes a line for each thing that is known.
pub(super) fn write(
    out: &mut impl io::Write,
    snapshot: &Snapshot<'_>,
    finding: &Finding,
) -> io::Result<()> {
    let known = finding.verdict.connections.iter().filter_map(|&id| snapshot.table.get(id));
    let known: Vec<&Connection> = known.collect();
    write_names(out, &known)?;
    // What it said before the connection fell silent may no longer be so.
    let sides: Vec<_> = known.iter().filter_map(|connection| connection.server_now()).collect();
    for (statement, count) in most(sides.iter().filter_map(|side| side.session.query.as_deref())) {
        writeln!(out, "  last statement ({count}x): {}", printable(statement))?;
    }
    let age = |at, age: Option<_>| Some(snapshot.now.since(at) + age?);
    let open: Vec<_> =
        sides.iter().filter_map(|side| age(side.at, side.session.transaction_age)).collect();
    if !open.is_empty() {
        writeln!(out, "  transaction open for {}", open.into_iter().collect::<Span>())?;
    }
    for (wait, count) in most(sides.iter().filter_map(|side| waits(&side.session))) {
        writeln!(out, "  the server waits for {} ({count}x)", printable(wait))?;
    }
    write_backends(out, &known)
}

/// "user shop, database shop, application orders".
fn write_names(out: &mut impl io::Write, known: &[&Connection]) -> io::Result<()> {
    let value = |by_wire: fn(&Connection) -> Option<&str>,
                 by_server: fn(&Session) -> Option<&str>| {
        let values = known.iter().filter_map(|connection| {
            by_wire(connection).or_else(|| by_server(&connection.server.as_deref()?.session))
        });
        let names: Vec<_> = most(values).into_iter().map(|(name, _)| printable(name)).collect();
        names.join(", ")
    };
    let names = [
        ("user", value(|c| c.wire.user.as_deref(), |s| s.user.as_deref())),
        ("database", value(|c| c.wire.database.as_deref(), |s| s.database.as_deref())),
        (
            "application",
            value(|c| c.wire.application_name.as_deref(), |s| s.application_name.as_deref()),
        ),
    ];
    let told: Vec<_> = names
        .iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(kind, names)| format!("{kind} {names}"))
        .collect();
    if told.is_empty() { Ok(()) } else { writeln!(out, "  {}", told.join("; ")) }
}

/// "backends 12405, 12419 and 9 more".
fn write_backends(out: &mut impl io::Write, known: &[&Connection]) -> io::Result<()> {
    let mut backends: Vec<u32> =
        known.iter().filter_map(|connection| connection.backend_pid()).collect();
    backends.sort_unstable();
    let more = backends.len().saturating_sub(MAX_BACKENDS);
    let shown: Vec<_> = backends.iter().take(MAX_BACKENDS).map(u32::to_string).collect();
    match (shown.is_empty(), more) {
        (true, _) => Ok(()),
        (false, 0) => writeln!(out, "  backends {}", shown.join(", ")),
        (false, more) => writeln!(out, "  backends {} and {more} more", shown.join(", ")),
    }
}

/// What a session waits for, unless that is its client, as every silent one does.
fn waits(session: &Session) -> Option<&str> {
    let (_, event) = session.wait.as_ref()?;
    (event != CLIENT_READ).then_some(event.as_str())
}

/// The most frequent values with how often they occur, the most frequent first.
fn most<'a>(values: impl Iterator<Item = &'a str>) -> Vec<(&'a str, usize)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for value in values.filter(|value| !value.is_empty()) {
        *counts.entry(value).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.truncate(MAX_VALUES);
    counts
}
