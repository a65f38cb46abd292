//! Connections.

use leak_stacks::StackId;
use schemars::JsonSchema;
use serde::Serialize;

use super::Time;
use super::servers::SessionModel;
use super::waiting::ConnectionUse;
use crate::engine::fate::Fates;
use crate::engine::snapshot::Snapshot;
use crate::engine::table::Connection;
use crate::model::{Destination, StateSource, TcpState, Use, WireState};

/// A TCP socket of a traced process, from `connect()` until the socket is destroyed.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Connection")]
pub(super) struct ConnectionModel<'a> {
    /// The kernel's socket cookie: unique for as long as the machine runs.
    id: u64,
    /// PID of the process that opened it; of a connection older than the trace, the first process
    /// that was seen with it.
    pid: u32,
    /// Thread that opened it. Null when its `connect()` was not seen.
    tid: Option<u32>,
    /// Goroutine that opened it. Null outside of Go, and when it is unknown.
    goroutine: Option<u64>,
    /// PIDs of the processes that have it among their file descriptors.
    held_by: Vec<u32>,
    /// The process's end, as in `127.0.0.1:41234` or `[::1]:41234`. Null before the kernel has
    /// chosen a port.
    local: Option<String>,
    /// The server's end.
    remote: String,
    /// The Kubernetes service or pod that has the server's address. Null when there is none, and
    /// when no API server was asked.
    destination: Option<&'a Destination>,
    /// The kernel's state of the connection.
    tcp_state: TcpState,
    /// What its messages tell.
    wire: WireModel<'a>,
    /// When `connect()` was called. Null when that was not seen.
    opened_at: Option<Time>,
    /// Whether it is older than the trace.
    opened_before_trace: bool,
    /// Milliseconds since the last payload byte in either direction; since it was opened when there
    /// was none.
    silent_ms: u64,
    /// Payload bytes sent by the process.
    bytes_sent: u64,
    /// Payload bytes received by the process.
    bytes_received: u64,
    /// Bytes from the server that lie unread in the socket. Null before the first list of sockets.
    unread_bytes: Option<u32>,
    /// By how many open connections its pool has grown since it fell silent. A pool is the
    /// connections of one process to one server with the same user, database and application name.
    opened_since_silent: i64,
    /// Id of the stack that called `connect()`, among `stacks`. Null when it is unknown.
    opened_by: Option<&'a StackId>,
    /// Id of the stack that sent the latest request, among `stacks`. Null when it is unknown: never
    /// an older request's.
    last_used_by: Option<&'a StackId>,
    /// Goroutine that sent the latest request. Null outside of Go, and when it is unknown.
    last_used_goroutine: Option<u64>,
    /// What its server said of it. Null when no `--pg-dsn` names the server, or it does not know
    /// the connection.
    server: Option<SessionModel<'a>>,
    /// Its latest uses, the oldest first. Absent without `--uses`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<UseModel<'_>>")]
    uses: Option<Vec<UseModel<'a>>>,
    /// Where it is now, and who has it.
    r#use: ConnectionUse,
}

/// A use of a connection: from its first request until the server is idle again.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Use")]
struct UseModel<'a> {
    /// When the first request was sent.
    acquired_at: Time,
    /// When the server was idle again. Null when it was not yet, and when it cannot be seen.
    released_at: Option<Time>,
    /// PID of the process that sent the first request.
    pid: u32,
    /// Thread that sent the first request.
    tid: u32,
    /// Goroutine that sent the first request. Null outside of Go, and when it is unknown.
    goroutine: Option<u64>,
    /// Id of the stack that sent the first request, among `stacks`. Null when it is unknown.
    stack: Option<&'a StackId>,
}

/// What the messages of a connection tell.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Wire")]
struct WireModel<'a> {
    /// Where the dialogue stands. Under TLS the messages do not tell; `source` says who does.
    state: WireState,
    /// Whether it is encrypted.
    tls: bool,
    /// Whether the client has sent `LISTEN`, and so may rightly wait.
    listens: bool,
    /// The user, by the startup message. Null when that was not seen, or encrypted.
    user: Option<&'a str>,
    /// The database, by the startup message. Null when it was not named or not seen.
    database: Option<&'a str>,
    /// `application_name`, by the startup message. Null when it was not named or not seen.
    application_name: Option<&'a str>,
    /// PID of the server's process for this connection. Null when it was not seen.
    backend_pid: Option<u32>,
    /// Who told `state`. Null when nobody did.
    source: Option<StateSource>,
}

impl<'a> ConnectionModel<'a> {
    pub(super) fn new(
        snapshot: &Snapshot<'a>,
        fates: &Fates<'_>,
        connection: &'a Connection,
    ) -> Self {
        let silent = connection.silent_for(snapshot.now);
        let local = connection.endpoints.local;
        let uses = connection.callers.uses.as_ref();
        Self {
            id: connection.id.0,
            pid: connection.process.pid,
            tid: connection.tid,
            goroutine: connection.goroutine,
            held_by: connection.held_by.iter().map(|process| process.pid).collect(),
            local: (local.port() != 0).then(|| local.to_string()),
            remote: connection.endpoints.remote.to_string(),
            destination: snapshot.destination(connection.endpoints.remote),
            tcp_state: connection.tcp.state,
            wire: WireModel::new(connection),
            opened_at: connection.opened_at.map(|at| Time(snapshot.clock.rfc3339(at))),
            opened_before_trace: connection.opened_before_trace(),
            silent_ms: u64::try_from(silent.as_millis()).unwrap_or(u64::MAX),
            bytes_sent: connection.traffic.bytes_sent,
            bytes_received: connection.traffic.bytes_received,
            unread_bytes: connection.traffic.unread_bytes,
            opened_since_silent: snapshot.table.opened_since_silent(connection),
            opened_by: at_hand(snapshot, connection.callers.opened_by.as_ref()),
            last_used_by: at_hand(snapshot, connection.callers.last_used_by.as_ref()),
            last_used_goroutine: connection.callers.last_used_goroutine,
            server: connection.server.as_ref().map(|side| SessionModel::new(snapshot, side)),
            uses: uses.map(|uses| uses.iter().map(|one| UseModel::new(snapshot, one)).collect()),
            r#use: ConnectionUse::new(snapshot, fates, connection),
        }
    }
}

impl<'a> UseModel<'a> {
    fn new(snapshot: &Snapshot<'a>, one: &'a Use) -> Self {
        Self {
            acquired_at: Time(snapshot.clock.rfc3339(one.acquired_at)),
            released_at: one.released_at.map(|at| Time(snapshot.clock.rfc3339(at))),
            pid: one.pid,
            tid: one.tid,
            goroutine: one.goroutine,
            stack: at_hand(snapshot, one.stack.as_ref()),
        }
    }
}

impl<'a> WireModel<'a> {
    fn new(connection: &'a Connection) -> Self {
        let wire = &connection.wire;
        let (state, source) = connection.told().unzip();
        Self {
            state: state.unwrap_or_default(),
            tls: wire.tls,
            listens: wire.listens,
            user: wire.user.as_deref(),
            database: wire.database.as_deref(),
            application_name: wire.application_name.as_deref(),
            backend_pid: wire.backend_pid,
            source,
        }
    }
}

/// The id of a stack that the report contains.
fn at_hand<'a>(snapshot: &Snapshot<'_>, id: Option<&'a StackId>) -> Option<&'a StackId> {
    id.filter(|id| snapshot.stack(Some(id)).is_some())
}
