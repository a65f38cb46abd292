//! The lines, each with its fields.

use std::time::Duration;

use leak_stacks::Frame;
use schemars::JsonSchema;
use serde::Serialize;

use crate::engine::Beginning;
use crate::model::server::{Listing, ServerAnswer};
use crate::model::time::Clock;
use crate::model::{IntervalCost, Usage};
use crate::outputs::json::model::{FindingModel, Report, ServerState, Time};

/// A line of `pgsocktrace -o ndjson`. Kinds of lines and fields may be added; what is there keeps
/// its meaning.
#[derive(Serialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
#[schemars(title = "pgsocktrace.ndjson")]
pub(super) enum Line<'a> {
    /// The first line: tracing has begun.
    RunStarted(Timed<Started<'a>>),
    /// A process called `connect()`.
    ConnectionOpened(Timed<Opened<'a>>),
    /// The handshake of a connection is done.
    ConnectionEstablished(Timed<Established>),
    /// A connection could not be established.
    ConnectionFailed(Timed<Failed>),
    /// A connection has ended.
    ConnectionClosed(Timed<Closed>),
    /// A server that `--pg-dsn` names was asked for its sessions.
    Server(Timed<Asked<'a>>),
    /// A finding is new, or has changed: its `id` tells.
    Finding(Timed<Found<'a>>),
    /// A finding is new. Written when `--events` asks for it.
    FindingOpened(Timed<Found<'a>>),
    /// A finding has changed. Written when `--events` asks for it.
    FindingUpdated(Timed<Found<'a>>),
    /// A finding is no longer true.
    FindingRetracted(Timed<Found<'a>>),
    /// What an interval has cost the tracer. Not among the lines of a replay.
    Interval(Timed<Interval>),
    /// The last line: the report, as `-o json` prints it.
    Report(Timed<Box<Report<'a>>>),
}

#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
pub(super) struct Timed<T> {
    /// When it happened; of findings and the report, when they were made.
    pub(super) time: Time,
    #[serde(flatten)]
    pub(super) body: T,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Started<'a> {
    /// Version of pgsocktrace.
    version: &'a str,
    /// Name of the machine that is traced.
    host: &'a str,
    /// Release of its kernel.
    kernel: &'a str,
    /// The server ports that are traced.
    ports: &'a [u16],
    /// How long without payload counts as silent, in milliseconds.
    silent_after_ms: u64,
    /// How often connections are judged, in milliseconds.
    interval_ms: u64,
}

impl<'a> Started<'a> {
    pub(super) fn new(beginning: &'a Beginning) -> Self {
        let Beginning { run, thresholds, .. } = beginning;
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            version: &run.version,
            host: &run.host,
            kernel: &run.kernel,
            ports: &run.ports,
            silent_after_ms: millis(thresholds.silent_after),
            interval_ms: millis(thresholds.interval),
        }
    }
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Opened<'a> {
    /// Id of the connection, as in the report.
    pub(super) id: u64,
    /// PID of the process that opened it.
    pub(super) pid: u32,
    /// Thread that opened it.
    pub(super) tid: u32,
    /// Name of the thread.
    pub(super) comm: &'a str,
    /// The server's end.
    pub(super) remote: String,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Established {
    /// Id of the connection.
    pub(super) id: u64,
    /// The process's end.
    pub(super) local: String,
    /// The server's end.
    pub(super) remote: String,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Failed {
    /// Id of the connection.
    pub(super) id: u64,
    /// The kernel's error number, as in 111 for a connection refused. Null when it was given up.
    pub(super) errno: Option<i32>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Closed {
    /// Id of the connection.
    pub(super) id: u64,
    /// PID of the process that opened it.
    pub(super) pid: u32,
    /// The process's end. Null when it never had a port.
    pub(super) local: Option<String>,
    /// The server's end.
    pub(super) remote: String,
    /// When it was opened. Null when that was not seen.
    pub(super) opened_at: Option<Time>,
    /// Payload bytes sent by the process.
    pub(super) bytes_sent: u64,
    /// Payload bytes received by the process.
    pub(super) bytes_received: u64,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Asked<'a> {
    /// Name of the server, as in the report.
    pub(super) server: &'a str,
    /// How it answers.
    pub(super) status: ServerState,
    /// What it said instead of listing its sessions. Null when it listed them.
    pub(super) message: Option<&'a str>,
    /// `max_connections`. Null when it did not list its sessions.
    pub(super) max_connections: Option<u32>,
    /// Sessions that count against `max_connections`. Null when it did not list its sessions.
    pub(super) used: Option<usize>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Found<'a> {
    #[serde(flatten)]
    pub(super) finding: FindingModel<'a>,
    /// Why it was retracted, or what became of connections that are no longer part of it. Absent
    /// when there is nothing to be said.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "&str")]
    pub(super) why: Option<&'a str>,
    /// The calls of `stack`, innermost first: the stack itself comes with the report. Null when
    /// there is no stack.
    pub(super) frames: Option<&'a [Frame]>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Interval {
    /// Connections that the kernel programs keep counters of.
    pub(super) connections: usize,
    /// CPU time for reading those counters, in microseconds. Null when they were not read.
    pub(super) read_us: Option<u64>,
    /// CPU time for applying them to the table, in microseconds. Null when they were not read.
    pub(super) taken_in_us: Option<u64>,
    /// Sockets that the kernel listed. Null when they were not listed.
    pub(super) listed: Option<usize>,
    /// CPU time for listing them, in microseconds. Null when they were not listed.
    pub(super) list_us: Option<u64>,
    /// CPU time for finding the processes that hold them, in microseconds. Null when they were not
    /// listed.
    pub(super) holders_us: Option<u64>,
    /// Time for resolving each stack since the interval before, in microseconds, in the order in
    /// which they were resolved; the first 4096 of them.
    pub(super) stacks_us: Vec<u64>,
    /// Blocked threads and parked goroutines that were looked at since the interval before.
    pub(super) looked_at: usize,
    /// CPU time for looking at them, in microseconds.
    pub(super) looks_us: u64,
}

impl Closed {
    pub(super) fn new(id: u64, usage: &Usage, clock: &Clock) -> Self {
        let local = usage.endpoints.local;
        Self {
            id,
            pid: usage.opener.process.pid,
            local: (local.port() != 0).then(|| local.to_string()),
            remote: usage.endpoints.remote.to_string(),
            opened_at: (!usage.adopted).then(|| Time(clock.rfc3339(usage.opened_at))),
            bytes_sent: usage.bytes_sent,
            bytes_received: usage.bytes_received,
        }
    }
}

impl<'a> Asked<'a> {
    pub(super) fn new(server: &'a str, answer: &'a ServerAnswer) -> Self {
        let (status, message, listing) = match answer {
            ServerAnswer::Listed(listing) => (ServerState::Answering, None, Some(listing)),
            ServerAnswer::Refused { why } => (ServerState::Refusing, Some(why.as_str()), None),
            ServerAnswer::Unreachable { why } => {
                (ServerState::Unreachable, Some(why.as_str()), None)
            }
        };
        Self {
            server,
            status,
            message,
            max_connections: listing.map(|listing| listing.settings.max_connections),
            used: listing.map(Listing::used),
        }
    }
}

impl Interval {
    pub(super) fn new(cost: &IntervalCost) -> Self {
        let IntervalCost { connections, read, taken_in, listed, list, holders, stacks, .. } = cost;
        let micros = |time: &Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Self {
            connections: *connections,
            read_us: read.as_ref().map(micros),
            taken_in_us: taken_in.as_ref().map(micros),
            listed: *listed,
            list_us: list.as_ref().map(micros),
            holders_us: holders.as_ref().map(micros),
            stacks_us: stacks.iter().map(micros).collect(),
            looked_at: cost.looked_at,
            looks_us: micros(&cost.looks),
        }
    }
}
