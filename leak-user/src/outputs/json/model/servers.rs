//! The servers' side of the JSON report.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::engine::snapshot::Snapshot;
use crate::engine::table::{Server, ServerSide, ServerStatus, SessionGroup, Stranger};
use crate::model::server::SessionState;

#[derive(Serialize)]
pub(super) struct ServerModel<'a> {
    server: &'a str,
    status: &'static str,
    /// Why it does not answer.
    message: Option<&'a str>,
    asked_at: String,
    version: Option<&'a str>,
    max_connections: Option<u32>,
    superuser_reserved: Option<u32>,
    reserved: Option<u32>,
    used: Option<usize>,
    traced: Option<usize>,
    full: bool,
    hidden: usize,
    cut: bool,
    answers: u64,
    refusals: u64,
    failures: u64,
    applications: Vec<ApplicationModel<'a>>,
    unowned: Vec<UnownedModel<'a>>,
}

#[derive(Serialize)]
struct ApplicationModel<'a> {
    application_name: Option<&'a str>,
    count: usize,
    traced: usize,
    states: BTreeMap<&'static str, usize>,
}

#[derive(Serialize)]
struct UnownedModel<'a> {
    client_addr: Option<String>,
    application_name: Option<&'a str>,
    user: Option<&'a str>,
    count: usize,
    states: BTreeMap<&'static str, usize>,
}

/// What the server says of one connection.
#[derive(Serialize)]
pub(super) struct SessionModel<'a> {
    server: &'a str,
    pid: u32,
    user: Option<&'a str>,
    database: Option<&'a str>,
    application_name: Option<&'a str>,
    state: Option<&'static str>,
    state_ms: Option<u64>,
    xact_ms: Option<u64>,
    backend_started_at: Option<String>,
    wait_event_type: Option<&'a str>,
    wait_event: Option<&'a str>,
    /// Without its literals.
    query: Option<&'a str>,
}

impl<'a> ServerModel<'a> {
    pub(super) fn new(snapshot: &Snapshot<'a>, name: &'a str, server: &'a Server) -> Self {
        let (status, message) = match &server.status {
            ServerStatus::Answering => ("answering", None),
            ServerStatus::Refusing(why) => ("refusing", Some(why.as_str())),
            ServerStatus::Unreachable(why) => ("unreachable", Some(why.as_str())),
        };
        let settings = server.settings.as_ref();
        let mut unowned: Vec<_> = server.unowned.iter().collect();
        unowned.sort_by_key(|(_, group)| std::cmp::Reverse(group.count));
        Self {
            server: name,
            status,
            message,
            asked_at: snapshot.clock.rfc3339(server.at),
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
            backend_started_at: session.age.map(|age| snapshot.clock.rfc3339(side.at.before(age))),
            wait_event_type: session.wait.as_ref().map(|(kind, _)| kind.as_str()),
            wait_event: session.wait.as_ref().map(|(_, name)| name.as_str()),
            query: session.query.as_deref(),
        }
    }
}
