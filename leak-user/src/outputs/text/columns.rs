//! The table of connections by process and server.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::engine::detect::duration;
use crate::engine::snapshot::Snapshot;
use crate::model::{ProcessKey, TcpState, WireState};
use crate::outputs::text::look::Look;
use crate::outputs::text::style::printable;
use crate::outputs::text::table::{self, Column};

/// Most rows shown.
const MAX_ROWS: usize = 40;
/// Over how long growth is shown.
const GROWTH: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Row {
    open: u64,
    idle: u64,
    busy: u64,
    in_transaction: u64,
    /// Ended by the server, and not by the process.
    closed: u64,
    unknown: u64,
    /// Connecting, in COPY or in replication.
    other: u64,
    silent: u64,
    growth: i64,
}

type Key = (ProcessKey, SocketAddr);

/// Writes the table. The server has a column where there are several: else the report names it
/// above.
pub(super) fn write(
    out: &mut impl io::Write,
    look: &Look,
    snapshot: &Snapshot<'_>,
) -> io::Result<()> {
    let mut rows: Vec<(Key, Row)> =
        rows(snapshot).into_iter().filter(|(_, row)| row.open > 0).collect();
    if rows.is_empty() {
        return writeln!(out, "no connections");
    }
    rows.sort_by_key(|(key, row)| (Reverse(row.open), *key));
    let more = rows.len().saturating_sub(MAX_ROWS);
    rows.truncate(MAX_ROWS);
    let servers: BTreeSet<_> = rows.iter().map(|((_, remote), _)| *remote).collect();
    let has_other = rows.iter().any(|(_, row)| row.other > 0);
    let cells: Vec<Vec<(Column, String)>> = rows
        .iter()
        .map(|(key, row)| cells(snapshot, *key, row, servers.len() > 1, has_other))
        .collect();
    let columns: Vec<_> =
        cells.iter().take(1).flatten().map(|(column, _)| column.clone()).collect();
    let rows: Vec<Vec<String>> =
        cells.into_iter().map(|row| row.into_iter().map(|(_, cell)| cell).collect()).collect();
    table::write(out, look.paint, &columns, &rows, Some(look.width()))?;
    if more > 0 {
        writeln!(out, "… and {more} more")?;
    }
    Ok(())
}

fn rows(snapshot: &Snapshot<'_>) -> BTreeMap<Key, Row> {
    let mut rows: BTreeMap<Key, Row> = BTreeMap::new();
    for connection in snapshot.table.connections() {
        let row = rows.entry((connection.process, connection.endpoints.remote)).or_default();
        row.open += 1;
        match (connection.tcp.state, connection.dialogue()) {
            (TcpState::CloseWait | TcpState::Close, _) => row.closed += 1,
            (_, WireState::Idle) => row.idle += 1,
            (_, WireState::InTransaction | WireState::FailedTransaction) => row.in_transaction += 1,
            // An unanswered request shows also where the state cannot be read.
            _ if connection.is_busy() => row.busy += 1,
            (_, WireState::Unknown) => row.unknown += 1,
            _ => row.other += 1,
        }
        let silence = connection.silent_for(snapshot.now);
        row.silent += u64::from(silence >= snapshot.thresholds.silent_after);
    }
    let from = snapshot.now.before(GROWTH);
    for pool in snapshot.table.pools() {
        if let Some(row) = rows.get_mut(&(pool.key.process, pool.key.remote)) {
            row.growth += pool.growth_since(from);
        }
    }
    rows
}

fn cells(
    snapshot: &Snapshot<'_>,
    (process, remote): Key,
    row: &Row,
    has_server: bool,
    has_other: bool,
) -> Vec<(Column, String)> {
    let Row { open, idle, busy, in_transaction, closed, unknown, other, silent, growth } = row;
    let comm = snapshot.comm(process).map_or_else(|| "?".to_owned(), printable);
    let silent_after = duration(snapshot.thresholds.silent_after).replace(' ', "");
    let text = |heading: &str, cell: String| (Column::Text(heading.to_owned().into()), cell);
    let number =
        |heading: &str, count: &u64| (Column::Number(heading.to_owned().into()), count.to_string());
    let mut cells = vec![text("PID", process.pid.to_string()), text("COMMAND", comm)];
    if has_server {
        cells.push(text("SERVER", remote.to_string()));
    }
    cells.extend([
        number("OPEN", open),
        number("idle", idle),
        number("busy", busy),
        number("in tx", in_transaction),
        number("closed", closed),
        number("?", unknown),
    ]);
    if has_other {
        cells.push(number("other", other));
    }
    cells.push(number(&format!("silent>{silent_after}"), silent));
    cells.push((Column::Number("+1 min".into()), format!("{growth:+}")));
    cells
}
