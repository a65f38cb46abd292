//! `pgsocktrace ls -o json`.

use schemars::JsonSchema;
use serde::Serialize;

use super::Time;
use super::servers::{ServerModel, SessionModel};
use crate::engine::snapshot::Snapshot;
use crate::engine::table::Connection;
use crate::model::time::rfc3339;
use crate::model::{ProcessInfo, TcpState, Timestamp};

const SCHEMA: &str = "pgsocktrace.ls/1";

/// What `pgsocktrace ls -o json` prints: the connections that there are at one moment. What is
/// unknown is null, never a made-up value. Fields and values may be added under this name; nothing
/// that is there changes its meaning.
#[derive(Serialize, JsonSchema)]
#[schemars(title = SCHEMA)]
pub(in crate::outputs) struct Listing<'a> {
    /// Name of the schema.
    #[schemars(extend("const" = SCHEMA))]
    schema: &'static str,
    /// Version of pgsocktrace.
    version: &'a str,
    /// Name of the machine.
    host: &'a str,
    /// The moment that this is about.
    at: Time,
    /// The server ports that were looked for.
    ports: &'a [u16],
    /// Whether every connection is known with its process. False when a network namespace or the
    /// file descriptors of a process could not be read.
    complete: bool,
    /// The connections, by process, the one that is silent for longest first.
    connections: Vec<ListedConnection<'a>>,
    /// The processes that hold them, by PID.
    processes: Vec<ListedProcess<'a>>,
    /// The servers that `--pg-dsn` names, by name.
    servers: Vec<ServerModel<'a>>,
}

/// A connection.
#[derive(Serialize, JsonSchema)]
struct ListedConnection<'a> {
    /// The kernel's socket cookie: unique for as long as the machine runs.
    id: u64,
    /// PID of the process that holds it; of several, the lowest.
    pid: u32,
    /// PIDs of all processes that hold it.
    held_by: Vec<u32>,
    /// The process's end, as in `127.0.0.1:41234`.
    local: String,
    /// The server's end.
    remote: String,
    /// The kernel's state of the connection.
    tcp_state: TcpState,
    /// When it was opened, by the server's word. Null when no server was asked, or it does not know
    /// the connection.
    since: Option<Time>,
    /// Milliseconds since the last payload byte in either direction; since the handshake when there
    /// was none.
    silent_ms: u64,
    /// Milliseconds since payload was last sent. Null before the handshake.
    last_sent_ms: Option<u64>,
    /// Milliseconds since payload was last received. Null before the handshake.
    last_received_ms: Option<u64>,
    /// Payload bytes that the server has acknowledged.
    bytes_sent: u64,
    /// Payload bytes received.
    bytes_received: u64,
    /// Bytes from the server that lie unread in the socket.
    unread_bytes: Option<u32>,
    /// What its server says of it. Null when no server was asked, or it does not know the
    /// connection.
    server: Option<SessionModel<'a>>,
}

/// A process that holds connections.
#[derive(Serialize, JsonSchema)]
struct ListedProcess<'a> {
    /// PID as the machine numbers it.
    pid: u32,
    /// PID inside its PID namespace. Null when it is in none of its own.
    container_pid: Option<u32>,
    /// When it started. Null when that could not be read.
    started_at: Option<Time>,
    /// Name of its main thread, at most 15 bytes, as `ps -o comm` shows it.
    comm: &'a str,
    /// Path of its program, in its own mount namespace. Null when it could not be read.
    exe: Option<&'a str>,
    /// The container runtime's id, 64 hexadecimal digits. Null outside of a container.
    container_id: Option<&'a str>,
    /// UID of its pod, which its cgroup tells. Null outside of a pod.
    pod_uid: Option<&'a str>,
}

impl<'a> Listing<'a> {
    /// `complete` says whether everything could be read.
    pub(in crate::outputs) fn new(snapshot: &Snapshot<'a>, complete: bool) -> Self {
        let mut connections: Vec<_> = snapshot.table.connections().collect();
        connections.sort_by_key(|one| (one.process, one.silent_since(), one.id));
        let mut processes: Vec<_> = snapshot.processes.values().collect();
        processes.sort_unstable_by_key(|info| info.key);
        let servers = snapshot.table.servers().iter();
        Self {
            schema: SCHEMA,
            version: &snapshot.run.version,
            host: &snapshot.run.host,
            at: Time(snapshot.clock.rfc3339(snapshot.now)),
            ports: &snapshot.run.ports,
            complete,
            connections: connections
                .into_iter()
                .map(|one| ListedConnection::new(snapshot, one))
                .collect(),
            processes: processes.into_iter().map(ListedProcess::new).collect(),
            servers: servers
                .map(|(name, server)| ServerModel::new(snapshot, name, server))
                .collect(),
        }
    }
}

impl<'a> ListedConnection<'a> {
    fn new(snapshot: &Snapshot<'a>, one: &'a Connection) -> Self {
        let since = |moment: Timestamp| {
            u64::try_from(snapshot.now.since(moment).as_millis()).unwrap_or(u64::MAX)
        };
        let traffic = &one.traffic;
        Self {
            id: one.id.0,
            pid: one.process.pid,
            held_by: one.held_by.iter().map(|holder| holder.pid).collect(),
            local: one.endpoints.local.to_string(),
            remote: one.endpoints.remote.to_string(),
            tcp_state: one.tcp.state,
            since: one.began().map(|at| Time(snapshot.clock.rfc3339(at))),
            silent_ms: since(one.silent_since()),
            last_sent_ms: traffic.last_send.map(since),
            last_received_ms: traffic.last_receive.map(since),
            bytes_sent: traffic.bytes_sent,
            bytes_received: traffic.bytes_received,
            unread_bytes: traffic.unread_bytes,
            server: one.server.as_ref().map(|side| SessionModel::new(snapshot, side)),
        }
    }
}

impl<'a> ListedProcess<'a> {
    fn new(info: &'a ProcessInfo) -> Self {
        Self {
            pid: info.key.pid,
            container_pid: info.container_pid,
            started_at: info.started_at.map(|at| Time(rfc3339(at))),
            comm: &info.comm,
            exe: info.exe.as_deref(),
            container_id: info.container_id.as_deref(),
            pod_uid: info.pod_uid.as_deref(),
        }
    }
}
