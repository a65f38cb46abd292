//! The JSON report's schema, `pgsocktrace.report/1`.
//!
//! Fields are written in the order in which they stand here. What is unknown is `null`.

mod servers;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::engine::detect::{Reason, Severity, StackOf};
use crate::engine::findings::Finding;
use crate::engine::snapshot::{Snapshot, StackCopies};
use crate::engine::table::{Connection, ProcessTally};
use crate::model::Pod;
use crate::model::clock::rfc3339;
use crate::model::{Destination, ProcessKey, StackId, TcpState, Use, WireState};
use crate::outputs::next_step::next_step;
use leak_stacks::{Frame, Language, Quality, Stack, StackCounts, TruncationReason};
use servers::{ServerModel, SessionModel};

const SCHEMA: &str = "pgsocktrace.report/1";

#[derive(Serialize)]
pub(crate) struct Report<'a> {
    schema: &'static str,
    version: &'a str,
    host: &'a str,
    kernel: &'a str,
    hooks: &'a BTreeMap<String, String>,
    started_at: String,
    ended_at: Option<String>,
    ports: &'a [u16],
    events: EventsModel,
    stack_quality: StackQualityModel,
    stack_copies: StackCopies,
    skipped_runs: u64,
    cost: CostModel,
    processes: Vec<ProcessModel<'a>>,
    connections: Vec<ConnectionModel<'a>>,
    stacks: BTreeMap<&'a StackId, StackModel<'a>>,
    findings: Vec<FindingModel<'a>>,
    servers: Vec<ServerModel<'a>>,
}

#[derive(Serialize)]
struct EventsModel {
    received: u64,
    lost: u64,
    reconciled: u64,
}

/// How the stacks that were wanted came out, and why those that are not complete are not.
#[derive(Serialize)]
struct StackQualityModel {
    complete: u64,
    truncated: u64,
    none: u64,
    reasons: BTreeMap<TruncationReason, u64>,
}

/// What tracing cost, in cores kept busy on average.
#[derive(Serialize)]
struct CostModel {
    /// From a second in thirty. Null: the kernel does not tell.
    kernel_cores: Option<f64>,
    collector_cores: Option<f64>,
}

#[derive(Serialize)]
struct ProcessModel<'a> {
    pid: u32,
    /// What it is called inside its PID namespace, when it is in one of its own.
    container_pid: Option<u32>,
    started_at: Option<String>,
    comm: Option<&'a str>,
    exe: Option<&'a str>,
    container_id: Option<&'a str>,
    /// Known even where nobody says what the pod is called.
    pod_uid: Option<&'a str>,
    /// Null outside of a pod, and where nobody was asked who schedules the process.
    pod: Option<PodModel<'a>>,
    open: u64,
    opened_total: u64,
    closed_total: u64,
    peak_open: u64,
    /// Connections that the server refused, by SQLSTATE.
    refused: &'a BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct PodModel<'a> {
    namespace: &'a str,
    name: &'a str,
    container: &'a str,
    /// Those that were asked for.
    labels: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
struct ConnectionModel<'a> {
    id: u64,
    pid: u32,
    tid: Option<u32>,
    goroutine: Option<u64>,
    held_by: Vec<u32>,
    local: Option<String>,
    remote: String,
    /// The service or pod that has the remote address. Null: no API server was asked, or it knows none.
    destination: Option<&'a Destination>,
    tcp_state: TcpState,
    wire: WireModel<'a>,
    opened_at: Option<String>,
    opened_before_trace: bool,
    silent_ms: u64,
    bytes_sent: u64,
    bytes_received: u64,
    unread_bytes: Option<u32>,
    opened_since_silent: i64,
    opened_by: Option<&'a StackId>,
    last_used_by: Option<&'a StackId>,
    last_used_goroutine: Option<u64>,
    /// Null: its server was not asked, or does not know it.
    server: Option<SessionModel<'a>>,
    /// Only when they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    uses: Option<Vec<UseModel<'a>>>,
}

#[derive(Serialize)]
struct UseModel<'a> {
    acquired_at: String,
    released_at: Option<String>,
    pid: u32,
    tid: u32,
    goroutine: Option<u64>,
    stack: Option<&'a StackId>,
}

#[derive(Serialize)]
struct WireModel<'a> {
    state: WireState,
    tls: bool,
    listens: bool,
    user: Option<&'a str>,
    database: Option<&'a str>,
    application_name: Option<&'a str>,
    backend_pid: Option<u32>,
}

#[derive(Serialize)]
struct StackModel<'a> {
    quality: Quality,
    quality_reason: Option<TruncationReason>,
    language: Language,
    frames: &'a [Frame],
}

#[derive(Serialize)]
pub(crate) struct FindingModel<'a> {
    id: String,
    reason: Reason,
    severity: Severity,
    since: String,
    process: FindingProcess<'a>,
    remote: String,
    connections: Vec<u64>,
    count: usize,
    evidence: &'a str,
    stack_of: StackOf,
    stack: Option<&'a StackId>,
    culprit: Option<CulpritModel<'a>>,
    next_step: Option<String>,
    retracted_at: Option<String>,
}

#[derive(Serialize)]
struct FindingProcess<'a> {
    pid: u32,
    comm: Option<&'a str>,
}

#[derive(Serialize)]
struct CulpritModel<'a> {
    function: Option<&'a str>,
    file: Option<&'a str>,
    line: Option<u32>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(snapshot: &Snapshot<'a>) -> Self {
        let Snapshot { table, ledger, run, events, .. } = *snapshot;
        let mut processes: Vec<_> = table.processes().collect();
        processes.sort_unstable_by_key(|(key, _)| *key);
        let mut connections: Vec<_> = table.connections().collect();
        connections.sort_unstable_by_key(|connection| connection.id);
        let findings: Vec<_> = ledger.open().into_iter().chain(ledger.retracted()).collect();
        Self {
            schema: SCHEMA,
            version: &run.version,
            host: &run.host,
            kernel: &run.kernel,
            hooks: &run.hooks,
            started_at: rfc3339(run.started_at),
            ended_at: snapshot.ended.then(|| snapshot.clock.rfc3339(snapshot.now)),
            ports: &run.ports,
            events: EventsModel {
                received: events.received,
                lost: events.lost,
                reconciled: table.losses().reconciled(),
            },
            stack_quality: StackQualityModel::new(&events.stacks),
            stack_copies: events.copies,
            skipped_runs: events.skipped_runs,
            cost: CostModel {
                kernel_cores: events.cost.kernel_cores(),
                collector_cores: events.cost.collector_cores(),
            },
            processes: processes
                .into_iter()
                .map(|(key, tally)| ProcessModel::new(snapshot, key, tally))
                .collect(),
            stacks: stacks(snapshot, &connections, &findings),
            connections: connections
                .into_iter()
                .map(|connection| ConnectionModel::new(snapshot, connection))
                .collect(),
            findings: findings
                .into_iter()
                .map(|finding| FindingModel::new(snapshot, finding))
                .collect(),
            servers: table
                .servers()
                .iter()
                .map(|(name, server)| ServerModel::new(snapshot, name, server))
                .collect(),
        }
    }
}

/// The stacks that connections and findings refer to.
fn stacks<'a>(
    snapshot: &Snapshot<'a>,
    connections: &[&'a Connection],
    findings: &[&'a Finding],
) -> BTreeMap<&'a StackId, StackModel<'a>> {
    let of_connections = connections
        .iter()
        .flat_map(|connection| [connection.opened_by.as_ref(), connection.last_used_by.as_ref()]);
    let of_uses = connections
        .iter()
        .flat_map(|connection| connection.uses.iter().flatten().map(|one| one.stack.as_ref()));
    let of_findings = findings.iter().map(|finding| finding.verdict.stack.as_ref());
    let ids: BTreeSet<&StackId> =
        of_connections.chain(of_uses).chain(of_findings).flatten().collect();
    ids.into_iter()
        .filter_map(|id| {
            let Stack { id: _, quality, truncation, language, frames, culprit: _ } =
                snapshot.stack(Some(id))?;
            let (quality, quality_reason, language) = (*quality, *truncation, *language);
            Some((id, StackModel { quality, quality_reason, language, frames }))
        })
        .collect()
}

impl StackQualityModel {
    fn new(counts: &StackCounts) -> Self {
        let StackCounts { complete, truncated, none, .. } = *counts;
        Self { complete, truncated, none, reasons: counts.reasons().collect() }
    }
}

impl<'a> ProcessModel<'a> {
    fn new(snapshot: &Snapshot<'a>, key: ProcessKey, tally: &'a ProcessTally) -> Self {
        let info = snapshot.processes.get(&key);
        let described = info.map(|info| info.comm.as_str());
        Self {
            pid: key.pid,
            container_pid: info.and_then(|info| info.container_pid),
            started_at: info.and_then(|info| info.started_at).map(rfc3339),
            comm: described.or(tally.comm.as_deref()),
            exe: info.and_then(|info| info.exe.as_deref()),
            container_id: info.and_then(|info| info.container_id.as_deref()),
            pod_uid: info.and_then(|info| info.pod_uid.as_deref()),
            pod: info.and_then(|info| info.pod.as_ref()).map(PodModel::new),
            open: tally.total.open,
            opened_total: tally.total.opened_total,
            closed_total: tally.total.closed_total,
            peak_open: tally.total.peak_open,
            refused: &tally.refused,
        }
    }
}

impl<'a> PodModel<'a> {
    fn new(pod: &'a Pod) -> Self {
        let Pod { namespace, name, container, labels } = pod;
        Self { namespace, name, container, labels }
    }
}

impl<'a> ConnectionModel<'a> {
    fn new(snapshot: &Snapshot<'a>, connection: &'a Connection) -> Self {
        let silent = connection.silent_for(snapshot.now);
        let local = connection.endpoints.local;
        let wire = &connection.wire;
        let at_hand =
            |id: &'a Option<StackId>| id.as_ref().filter(|id| snapshot.stack(Some(id)).is_some());
        Self {
            id: connection.id.0,
            pid: connection.process.pid,
            tid: connection.tid,
            goroutine: connection.goroutine,
            held_by: connection.held_by.iter().map(|process| process.pid).collect(),
            local: (local.port() != 0).then(|| local.to_string()),
            remote: connection.endpoints.remote.to_string(),
            destination: snapshot.destination(connection.endpoints.remote),
            tcp_state: connection.tcp_state,
            wire: WireModel {
                state: wire.state,
                tls: wire.tls,
                listens: wire.listens,
                user: wire.user.as_deref(),
                database: wire.database.as_deref(),
                application_name: wire.application_name.as_deref(),
                backend_pid: wire.backend_pid,
            },
            opened_at: connection.opened_at.map(|at| snapshot.clock.rfc3339(at)),
            opened_before_trace: connection.opened_before_trace(),
            silent_ms: u64::try_from(silent.as_millis()).unwrap_or(u64::MAX),
            bytes_sent: connection.bytes_sent,
            bytes_received: connection.bytes_received,
            unread_bytes: connection.unread_bytes,
            opened_since_silent: snapshot.table.opened_since_silent(connection),
            opened_by: at_hand(&connection.opened_by),
            last_used_by: at_hand(&connection.last_used_by),
            last_used_goroutine: connection.last_used_goroutine,
            server: connection.server.as_ref().map(|side| SessionModel::new(snapshot, side)),
            uses: connection.uses.as_ref().map(|uses| {
                let model = |one: &'a Use| UseModel {
                    acquired_at: snapshot.clock.rfc3339(one.acquired_at),
                    released_at: one.released_at.map(|at| snapshot.clock.rfc3339(at)),
                    pid: one.pid,
                    tid: one.tid,
                    goroutine: one.goroutine,
                    stack: at_hand(&one.stack),
                };
                uses.iter().map(model).collect()
            }),
        }
    }
}

impl<'a> FindingModel<'a> {
    pub(crate) fn new(snapshot: &Snapshot<'a>, finding: &'a Finding) -> Self {
        let verdict = &finding.verdict;
        let stack = snapshot.stack(verdict.stack.as_ref());
        let culprit = stack.and_then(|stack| stack.frames.get(stack.culprit?));
        Self {
            id: finding.id.to_string(),
            reason: verdict.reason,
            severity: verdict.severity,
            since: snapshot.clock.rfc3339(finding.since),
            process: FindingProcess {
                pid: verdict.process.pid,
                comm: snapshot.comm(verdict.process),
            },
            remote: verdict.remote.to_string(),
            connections: verdict.connections.iter().map(|id| id.0).collect(),
            count: verdict.connections.len(),
            evidence: &verdict.evidence,
            stack_of: verdict.stack_of,
            stack: stack.map(|stack| &stack.id),
            culprit: culprit.map(|frame| CulpritModel {
                function: frame.function.as_deref(),
                file: frame.file.as_deref(),
                line: frame.line,
            }),
            next_step: next_step(verdict, culprit),
            retracted_at: finding.retracted_at.map(|at| snapshot.clock.rfc3339(at)),
        }
    }
}

#[cfg(test)]
mod tests;
