//! The server's sessions of a finding's connections: who they are and what they did last, as the
//! wire and the server itself tell it.

use std::collections::BTreeMap;

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

/// The connections of a finding that are still known.
pub(super) fn members<'a>(snapshot: &Snapshot<'a>, finding: &Finding) -> Vec<&'a Connection> {
    finding.verdict.connections.iter().filter_map(|&id| snapshot.table.get(id)).collect()
}

/// What their server said of them: their last statements, for how long their transactions are open,
/// and what they wait for.
pub(super) fn by_server(snapshot: &Snapshot<'_>, members: &[&Connection]) -> Vec<String> {
    // What it said before the connection fell silent may no longer be so.
    let sides: Vec<_> = members.iter().filter_map(|connection| connection.server_now()).collect();
    let statements = most(sides.iter().filter_map(|side| side.session.query.as_deref()));
    let statement = |(text, count): (&str, usize)| match (sides.len(), count) {
        (1, _) => printable(text),
        _ => format!("{} ({count}x)", printable(text)),
    };
    let mut told: Vec<_> = statements.into_iter().map(statement).collect();
    let age = |at, age: Option<_>| Some(snapshot.now.since(at) + age?);
    let open: Vec<_> =
        sides.iter().filter_map(|side| age(side.at, side.session.transaction_age)).collect();
    if !open.is_empty() {
        told.push(format!("transaction open for {}", open.into_iter().collect::<Span>()));
    }
    for (wait, count) in most(sides.iter().filter_map(|side| waits(&side.session))) {
        told.push(format!("the server waits for {} ({count}x)", printable(wait)));
    }
    told
}

/// "user=shop db=shop app=orders".
pub(super) fn names(members: &[&Connection]) -> String {
    let value = |by_wire: fn(&Connection) -> Option<&str>,
                 by_server: fn(&Session) -> Option<&str>| {
        let values = members.iter().filter_map(|connection| {
            by_wire(connection).or_else(|| by_server(&connection.server.as_deref()?.session))
        });
        let names: Vec<_> = most(values).into_iter().map(|(name, _)| printable(name)).collect();
        names.join(",")
    };
    let names = [
        ("user", value(|c| c.wire.user.as_deref(), |s| s.user.as_deref())),
        ("db", value(|c| c.wire.database.as_deref(), |s| s.database.as_deref())),
        ("app", value(|c| c.wire.application_name.as_deref(), |s| s.application_name.as_deref())),
    ];
    let told = names.iter().filter(|(_, names)| !names.is_empty());
    told.map(|(kind, names)| format!("{kind}={names}")).collect::<Vec<_>>().join(" ")
}

/// "12405 12419 … (21)".
pub(super) fn backends(members: &[&Connection]) -> Option<String> {
    let mut backends: Vec<u32> =
        members.iter().filter_map(|connection| connection.backend_pid()).collect();
    backends.sort_unstable();
    let count = backends.len();
    let shown: Vec<_> = backends.iter().take(MAX_BACKENDS).map(u32::to_string).collect();
    match count {
        0 => None,
        1..=MAX_BACKENDS => Some(shown.join(" ")),
        _ => Some(format!("{} … ({count})", shown.join(" "))),
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
