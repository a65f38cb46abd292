//! `pgsocktrace ls`: one line a connection.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io;

use crate::engine::detect::{duration, plural};
use crate::engine::snapshot::Snapshot;
use crate::engine::table::Connection;
use crate::model::server::SessionState;
use crate::outputs::text::servers;
use crate::outputs::text::style::{Paint, Tone, printable};
use crate::outputs::text::table::{self, Column};

/// How much of a container's id people and their tools use.
const SHORT_ID: usize = 12;
/// How much of a statement is shown; the JSON has more.
const STATEMENT: usize = 60;
/// What is not known.
const UNKNOWN: &str = "?";

/// What can be seen without the server.
const COLUMNS: &[Column] = &[
    Column::Text(Cow::Borrowed("PID")),
    Column::Text(Cow::Borrowed("COMMAND")),
    Column::Text(Cow::Borrowed("CONTAINER")),
    Column::Text(Cow::Borrowed("CLIENT")),
    Column::Text(Cow::Borrowed("SERVER")),
    Column::Text(Cow::Borrowed("TCP")),
    Column::Text(Cow::Borrowed("LAST")),
    Column::Number(Cow::Borrowed("SILENT")),
    Column::Number(Cow::Borrowed("UNREAD")),
];
/// What the server adds.
const SERVER_COLUMNS: &[Column] = &[
    Column::Text(Cow::Borrowed("STATE")),
    Column::Number(Cow::Borrowed("AGE")),
    Column::Number(Cow::Borrowed("IN TX FOR")),
    Column::Text(Cow::Borrowed("BACKEND")),
    Column::Text(Cow::Borrowed("USER")),
    Column::Text(Cow::Borrowed("DATABASE")),
    Column::Text(Cow::Borrowed("APPLICATION")),
    Column::Text(Cow::Borrowed("LAST STATEMENT")),
];

/// Writes the connections, those of a process together and the one that is silent for longest
/// first.
///
/// # Errors
/// What `out` returns.
pub fn write_listing(
    out: &mut impl io::Write,
    paint: Paint,
    snapshot: &Snapshot<'_>,
) -> io::Result<()> {
    let mut connections: Vec<&Connection> = snapshot.table.connections().collect();
    if connections.is_empty() {
        let ports: Vec<_> = snapshot.run.ports.iter().map(u16::to_string).collect();
        writeln!(out, "no connections to port {}", ports.join(", "))?;
    } else {
        connections.sort_by_key(|one| (one.process, one.silent_since(), one.id));
        let asked = !snapshot.table.servers().is_empty();
        let columns: Vec<_> =
            COLUMNS.iter().chain(SERVER_COLUMNS.iter().filter(|_| asked)).cloned().collect();
        let row = |one: &&Connection| {
            let mut row = own_cells(snapshot, one);
            if asked {
                row.extend(server_cells(snapshot, one));
            }
            row
        };
        let rows: Vec<_> = connections.iter().map(row).collect();
        table::write(out, paint, &columns, &rows, None)?;
        writeln!(out, "{}", paint.tone(Tone::Strong, &summary(&connections)))?;
    }
    servers::write(out, paint, snapshot)
}

fn summary(connections: &[&Connection]) -> String {
    let processes: BTreeSet<_> = connections.iter().map(|one| one.process).collect();
    let servers: BTreeSet<_> = connections.iter().map(|one| one.endpoints.remote).collect();
    let processes = match processes.len() {
        1 => "1 process".to_owned(),
        count => format!("{count} processes"),
    };
    format!(
        "{} of {processes} to {}",
        plural(connections.len(), "connection"),
        plural(servers.len(), "server")
    )
}

fn own_cells(snapshot: &Snapshot<'_>, one: &Connection) -> Vec<String> {
    let container = snapshot
        .processes
        .get(&one.process)
        .and_then(|info| info.container_id.as_deref()?.get(..SHORT_ID));
    let traffic = &one.traffic;
    let last = if traffic.last_receive >= traffic.last_send { "received" } else { "sent" };
    vec![
        one.process.pid.to_string(),
        snapshot.comm(one.process).map_or_else(|| UNKNOWN.to_owned(), printable),
        container.unwrap_or("-").to_owned(),
        one.endpoints.local.to_string(),
        one.endpoints.remote.to_string(),
        one.tcp.state.to_string(),
        last.to_owned(),
        duration(one.silent_for(snapshot.now)),
        traffic.unread_bytes.unwrap_or(0).to_string(),
    ]
}

fn server_cells(snapshot: &Snapshot<'_>, one: &Connection) -> Vec<String> {
    let Some(side) = one.server.as_deref() else {
        return SERVER_COLUMNS.iter().map(|_| UNKNOWN.to_owned()).collect();
    };
    let session = &side.session;
    let name = |name: &Option<String>| match name.as_deref() {
        Some(name) if !name.is_empty() => printable(name),
        _ => "-".to_owned(),
    };
    let since_asked = snapshot.now.since(side.at);
    let age = |age: Option<std::time::Duration>| {
        age.map_or_else(|| "-".to_owned(), |age| duration(age + since_asked))
    };
    let statement: Option<String> = session.query.as_deref().map(|query| {
        let words: Vec<_> = query.split_whitespace().collect();
        words.join(" ").chars().take(STATEMENT).collect()
    });
    vec![
        session.state.map_or(UNKNOWN, SessionState::name).to_owned(),
        age(session.age),
        age(session.transaction_age),
        session.pid.to_string(),
        name(&session.user),
        name(&session.database),
        name(&session.application_name),
        name(&statement),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outputs::testing::Run;

    fn written(run: &Run) -> String {
        let mut out = Vec::new();
        write_listing(&mut out, Paint::new(false), &run.snapshot(200.0)).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_connection_has_a_line_with_its_process_and_silence() {
        let text = written(&Run::new());
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("PID   COMMAND"), "{text}");
        assert!(!lines[0].contains("STATE"), "no server was asked: {text}");
        // The one that is silent for longest comes first.
        assert!(lines[1].contains("shop\\u{1b}[2J") && lines[1].contains("3f4f6c1c0a3f"), "{text}");
        assert!(lines[1].contains("ESTABLISHED") && lines[1].contains("189 s"), "{text}");
        assert_eq!(*lines.last().unwrap(), "13 connections of 1 process to 1 server");
    }

    #[test]
    fn nothing_is_said_to_be_nothing() {
        let mut run = Run::new();
        for number in 0..=12 {
            run.world.close(number, 150.0);
        }
        assert_eq!(written(&run), "no connections to port 5432\n");
    }
}
