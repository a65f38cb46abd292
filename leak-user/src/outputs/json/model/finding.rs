//! Findings.

use leak_stacks::{Frame, StackId};
use schemars::JsonSchema;
use serde::Serialize;

use super::Time;
use crate::engine::detect::{CulpritFrom, Numbers, Reason, Severity, StackOf};
use crate::engine::findings::Finding;
use crate::engine::snapshot::Snapshot;
use crate::engine::table::Connection;

/// A verdict about one or more connections of a process, with its evidence.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Finding")]
pub(in crate::outputs) struct FindingModel<'a> {
    /// Name of the finding, unique in the run: `f1`, `f2` and so on.
    id: String,
    /// What is wrong.
    reason: Reason,
    /// How much it weighs.
    severity: Severity,
    /// When it was found.
    since: Time,
    /// The process that opened the connections.
    process: FindingProcess<'a>,
    /// The server's address, as in `10.0.0.7:5432`.
    remote: String,
    /// Ids of the connections. One that has ended since is not among the report's `connections`.
    connections: Vec<u64>,
    /// How many connections there are.
    count: usize,
    /// PIDs of the server's backends of those connections, as far as they are known.
    backend_pids: Vec<u32>,
    /// Why, in one sentence with its numbers.
    evidence: String,
    /// The numbers of the sentence, by name. Those of durations end in `_ms`.
    evidence_numbers: Numbers,
    /// Which stack of the connections `stack` is.
    stack_of: StackOf,
    /// Id of the stack that all or most of the connections have in common, among `stacks`. Null
    /// when they have none, or it is unknown.
    stack: Option<&'a StackId>,
    /// The call that is to blame: of the application, not of libc, a runtime or a driver. Where no
    /// call of `stack` is, the code that sends the last statement. Null when nobody is named.
    culprit: Option<CulpritModel<'a>>,
    /// Where to look, and for what. Null when there is nothing to be done.
    next_step: Option<String>,
    /// When it stopped being true. Null while it stands.
    retracted_at: Option<Time>,
    /// What names `culprit`: it sent the connections' last request, or opened them, or it sends the
    /// statement that their server says was the last one. Null when there is no `culprit`.
    culprit_from: Option<CulpritFrom>,
    /// The functions that send the connections' last statement, where there are several: any of
    /// them may be to blame, and `culprit` is null. Empty otherwise.
    culprit_candidates: Vec<CulpritModel<'a>>,
}

/// The process that a finding is about.
#[derive(Serialize, JsonSchema)]
struct FindingProcess<'a> {
    /// PID as the machine numbers it.
    pid: u32,
    /// Name of its main thread. Null when it was not seen.
    comm: Option<&'a str>,
}

/// The call that a finding blames.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Culprit")]
struct CulpritModel<'a> {
    /// Demangled name of the function. Null when it is unknown.
    function: Option<&'a str>,
    /// Source file. Null without debug information.
    file: Option<&'a str>,
    /// Line in `file`, from 1. Null without debug information.
    line: Option<u32>,
}

impl<'a> FindingModel<'a> {
    pub(in crate::outputs) fn new(snapshot: &Snapshot<'a>, finding: &'a Finding) -> Self {
        let verdict = &finding.verdict;
        let stack = snapshot.stack(verdict.stack.as_ref());
        let culprit = snapshot.culprit(verdict);
        Self {
            id: finding.id.to_string(),
            reason: verdict.reason,
            severity: verdict.severity,
            since: Time(snapshot.clock.rfc3339(finding.since)),
            process: FindingProcess {
                pid: verdict.process.pid,
                comm: snapshot.comm(verdict.process),
            },
            remote: verdict.remote.to_string(),
            connections: verdict.connections.iter().map(|id| id.0).collect(),
            count: verdict.connections.len(),
            backend_pids: backends(snapshot, finding),
            evidence: finding.evidence(),
            evidence_numbers: finding.evidence_numbers(),
            stack_of: verdict.stack_of,
            stack: stack.map(|stack| &stack.id),
            culprit: culprit.map(CulpritModel::new),
            next_step: verdict.next_step(culprit),
            retracted_at: finding.retracted_at.map(|at| Time(snapshot.clock.rfc3339(at))),
            culprit_from: snapshot.culprit_from(verdict),
            culprit_candidates: candidates(finding),
        }
    }
}

/// The backends of a finding's connections: by the wire, else by the server's own list.
fn backends(snapshot: &Snapshot<'_>, finding: &Finding) -> Vec<u32> {
    let connections = finding.verdict.connections.iter();
    let known = connections.filter_map(|&id| snapshot.table.get(id));
    known.filter_map(Connection::backend_pid).collect()
}

/// The functions that may be to blame, when nobody knows which.
fn candidates(finding: &Finding) -> Vec<CulpritModel<'_>> {
    let sender = finding.verdict.sender.as_ref().filter(|sender| sender.only().is_none());
    sender.map_or_else(Vec::new, |sender| sender.code.iter().map(CulpritModel::new).collect())
}

impl<'a> CulpritModel<'a> {
    fn new(frame: &'a Frame) -> Self {
        Self { function: frame.function.as_deref(), file: frame.file.as_deref(), line: frame.line }
    }
}
