//! The servers' side.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;

use super::Time;
use crate::engine::snapshot::Snapshot;
use crate::engine::table::{Server, ServerSide, ServerStatus, SessionGroup, Stranger};
use crate::model::server::SessionState;

/// A server that was asked for its sessions. The one that asks is not counted among them.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Server")]
pub(super) struct ServerModel<'a> {
    /// Name of the server: host, port and database that `--pg-dsn` gives, as in `db:5432/postgres`.
    server: &'a str,
    /// How it answered last.
    status: ServerState,
    /// What it said instead of listing its sessions. Null when it listed them.
    message: Option<&'a str>,
    /// When it was asked last.
    asked_at: Time,
    /// `server_version`. Null until it has answered.
    version: Option<&'a str>,
    /// `max_connections`. Null until it has answered.
    max_connections: Option<u32>,
    /// `superuser_reserved_connections`. Null until it has answered.
    superuser_reserved: Option<u32>,
    /// `reserved_connections`, 0 before PostgreSQL 16. Null until it has answered.
    reserved: Option<u32>,
    /// Sessions that count against `max_connections`. Null while it does not answer.
    used: Option<usize>,
    /// Sessions that are connections of traced processes. Null while it does not answer.
    traced: Option<usize>,
    /// Whether it has no connection left for users without privileges.
    full: bool,
    /// Sessions of which the role that asked may not see what they do.
    hidden: usize,
    /// Whether it has more sessions than are looked at.
    cut: bool,
    /// How often it listed its sessions.
    answers: u64,
    /// How often it refused because all its connections were taken.
    refusals: u64,
    /// How often it could not be asked.
    failures: u64,
    /// All its sessions, by `application_name`.
    applications: Vec<ApplicationModel<'a>>,
    /// The sessions that no traced process owns, the largest group first.
    unowned: Vec<UnownedModel<'a>>,
}

/// How a server answers.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "ServerStatus")]
pub(in crate::outputs) enum ServerState {
    /// It lists its sessions.
    Answering,
    /// It lets nobody in: all its connections are taken.
    Refusing,
    /// It cannot be asked.
    Unreachable,
}

/// Sessions with the same `application_name`.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Application")]
struct ApplicationModel<'a> {
    /// Their `application_name`. Null when they have none.
    application_name: Option<&'a str>,
    /// How many there are.
    count: usize,
    /// How many of them are connections of traced processes.
    traced: usize,
    /// How many there are in each of the server's states, as in `"idle in transaction": 3`;
    /// `unknown` where the server does not say.
    states: BTreeMap<&'static str, usize>,
}

/// Sessions of one client that no traced process owns.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Unowned")]
struct UnownedModel<'a> {
    /// The client's address. Null on a Unix socket, and when it is hidden.
    client_addr: Option<String>,
    /// Their `application_name`. Null when they have none.
    application_name: Option<&'a str>,
    /// Their user. Null when it is hidden.
    user: Option<&'a str>,
    /// How many there are.
    count: usize,
    /// How many there are in each of the server's states; `unknown` where the server does not say.
    states: BTreeMap<&'static str, usize>,
}

/// What a server says of one connection: its row of `pg_stat_activity`.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Session")]
pub(super) struct SessionModel<'a> {
    /// Name of the server, among `servers`.
    server: &'a str,
    /// PID of the server's process for the connection.
    pid: u32,
    /// `usename`. Null when there is none, and when it is hidden.
    user: Option<&'a str>,
    /// `datname`. Null when there is none, and when it is hidden.
    database: Option<&'a str>,
    /// `application_name`. Null when it has none.
    application_name: Option<&'a str>,
    /// `state`. Null when it is hidden.
    #[schemars(schema_with = "session_state")]
    state: Option<&'static str>,
    /// Milliseconds since the state changed. Null when that is hidden.
    state_ms: Option<u64>,
    /// Milliseconds since the transaction began. Null outside of one, and when it is hidden.
    xact_ms: Option<u64>,
    /// When the server's process for the connection started. Null when it is hidden.
    backend_started_at: Option<Time>,
    /// `wait_event_type`, as in `Client`. Null when it does not wait, and when it is hidden.
    wait_event_type: Option<&'a str>,
    /// `wait_event`, as in `ClientRead`. Null when it does not wait, and when it is hidden.
    wait_event: Option<&'a str>,
    /// The first 1,024 characters of the latest statement, without its literals. Null when there
    /// was none, and when it is hidden.
    query: Option<&'a str>,
    /// What a comment in that statement says of the request that it belongs to, as sqlcommenter and
    /// Marginalia write it: `route`, `traceparent`, `controller` and the like. Empty without one.
    comment: &'a BTreeMap<String, String>,
}

fn session_state(_: &mut SchemaGenerator) -> Schema {
    let names = SessionState::ALL.into_iter().map(|state| Some(state.name()));
    json_schema!({
        "type": ["string", "null"],
        "enum": names.chain([None]).collect::<Vec<_>>(),
    })
}

impl<'a> ServerModel<'a> {
    pub(super) fn new(snapshot: &Snapshot<'a>, name: &'a str, server: &'a Server) -> Self {
        let (status, message) = match &server.status {
            ServerStatus::Answering => (ServerState::Answering, None),
            ServerStatus::Refusing(why) => (ServerState::Refusing, Some(why.as_str())),
            ServerStatus::Unreachable(why) => (ServerState::Unreachable, Some(why.as_str())),
        };
        let settings = server.settings.as_ref();
        let mut unowned: Vec<_> = server.unowned.iter().collect();
        unowned.sort_by_key(|(_, group)| std::cmp::Reverse(group.count));
        Self {
            server: name,
            status,
            message,
            asked_at: Time(snapshot.clock.rfc3339(server.at)),
            version: settings.map(|settings| settings.version.as_str()),
            max_connections: settings.map(|settings| settings.max_connections),
            superuser_reserved: settings.map(|settings| settings.superuser_reserved),
            reserved: settings.map(|settings| settings.reserved),
            used: server.used,
            traced: server.used.map(|_| server.traced),
            full: server.is_full(),
            hidden: server.hidden,
            cut: server.cut,
            answers: server.answers,
            refusals: server.refusals,
            failures: server.failures,
            applications: server
                .applications
                .iter()
                .map(|(name, group)| ApplicationModel {
                    application_name: name.as_deref(),
                    count: group.count,
                    traced: group.traced,
                    states: states(group),
                })
                .collect(),
            unowned: unowned
                .into_iter()
                .map(|(stranger, group)| unowned_model(stranger, group))
                .collect(),
        }
    }
}

fn unowned_model<'a>(stranger: &'a Stranger, group: &SessionGroup) -> UnownedModel<'a> {
    UnownedModel {
        client_addr: stranger.client.map(|address| address.to_string()),
        application_name: stranger.application_name.as_deref(),
        user: stranger.user.as_deref(),
        count: group.count,
        states: states(group),
    }
}

fn states(group: &SessionGroup) -> BTreeMap<&'static str, usize> {
    let name = |state: &Option<SessionState>| state.map_or("unknown", SessionState::name);
    group.states.iter().map(|(state, &count)| (name(state), count)).collect()
}

impl<'a> SessionModel<'a> {
    pub(super) fn new(snapshot: &Snapshot<'a>, side: &'a ServerSide) -> Self {
        let session = &side.session;
        // Ages are as of the moment it was asked; the report is of now.
        let milliseconds = |age: std::time::Duration| {
            u64::try_from((age + snapshot.now.since(side.at)).as_millis()).unwrap_or(u64::MAX)
        };
        Self {
            server: &side.server,
            pid: session.pid,
            user: session.user.as_deref(),
            database: session.database.as_deref(),
            application_name: session.application_name.as_deref(),
            state: session.state.map(SessionState::name),
            state_ms: session.state_age.map(milliseconds),
            xact_ms: session.transaction_age.map(milliseconds),
            backend_started_at: session
                .age
                .map(|age| Time(snapshot.clock.rfc3339(side.at.before(age)))),
            wait_event_type: session.wait.as_ref().map(|(kind, _)| kind.as_str()),
            wait_event: session.wait.as_ref().map(|(_, name)| name.as_str()),
            query: session.query.as_deref(),
            comment: &session.comment,
        }
    }
}
