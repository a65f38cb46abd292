//! The table of connections by process and server.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::engine::detect::duration;
use crate::engine::snapshot::Snapshot;
use crate::model::{ProcessKey, WireState};
use crate::outputs::text::style::{Paint, printable};
use crate::outputs::text::table::{self, Column};

/// Most rows shown.
const MAX_ROWS: usize = 40;
/// Over how long growth is shown.
const GROWTH: Duration = Duration::from_secs(60);

const COLUMNS: &[Column] = &[
    Column::Text("PID"),
    Column::Text("COMMAND"),
    Column::Text("SERVER"),
    Column::Number("OPEN"),
    Column::Number("IDLE"),
    Column::Number("BUSY"),
    Column::Number("IN TX"),
    Column::Number("UNKNOWN"),
    Column::Number("SILENT"),
    Column::Number("OLDEST"),
    Column::Number("+1 MIN"),
];

#[derive(Default)]
struct Row {
    open: u64,
    idle: u64,
    busy: u64,
    in_transaction: u64,
    unknown: u64,
    silent: u64,
    oldest: Duration,
    growth: i64,
}

pub(super) fn write(
    out: &mut impl io::Write,
    paint: Paint,
    snapshot: &Snapshot<'_>,
) -> io::Result<()> {
    let mut rows: Vec<_> = rows(snapshot).into_iter().filter(|(_, row)| row.open > 0).collect();
    if rows.is_empty() {
        return writeln!(out, "no connections");
    }
    rows.sort_by_key(|(key, row)| (std::cmp::Reverse(row.open), *key));
    let more = rows.len().saturating_sub(MAX_ROWS);
    rows.truncate(MAX_ROWS);
    let cells: Vec<_> = rows
        .iter()
        .map(|((process, remote), row)| cells(*process, snapshot.comm(*process), *remote, row))
        .collect();
    table::write(out, paint, COLUMNS, &cells)?;
    if more > 0 {
        writeln!(out, "… and {more} more")?;
    }
    Ok(())
}

fn rows(snapshot: &Snapshot<'_>) -> BTreeMap<(ProcessKey, SocketAddr), Row> {
    let mut rows: BTreeMap<(ProcessKey, SocketAddr), Row> = BTreeMap::new();
    for connection in snapshot.table.connections() {
        let row = rows.entry((connection.process, connection.endpoints.remote)).or_default();
        let silence = connection.silent_for(snapshot.now);
        row.open += 1;
        match connection.dialogue() {
            WireState::Idle => row.idle += 1,
            WireState::InTransaction | WireState::FailedTransaction => row.in_transaction += 1,
            // An unanswered request shows also where the state cannot be read.
            _ if connection.is_busy() => row.busy += 1,
            WireState::Unknown => row.unknown += 1,
            _ => {}
        }
        row.silent += u64::from(silence >= snapshot.thresholds.silent_after);
        row.oldest = row.oldest.max(silence);
    }
    let from = snapshot.now.before(GROWTH);
    for pool in snapshot.table.pools() {
        if let Some(row) = rows.get_mut(&(pool.key.process, pool.key.remote)) {
            row.growth += pool.growth_since(from);
        }
    }
    rows
}

fn cells(process: ProcessKey, comm: Option<&str>, remote: SocketAddr, row: &Row) -> Vec<String> {
    let Row { open, idle, busy, in_transaction, unknown, silent, oldest, growth } = row;
    vec![
        process.pid.to_string(),
        comm.map_or_else(|| "?".to_owned(), printable),
        remote.to_string(),
        open.to_string(),
        idle.to_string(),
        busy.to_string(),
        in_transaction.to_string(),
        unknown.to_string(),
        silent.to_string(),
        duration(*oldest),
        format!("{growth:+}"),
    ]
}
