//! Findings.

use leak_stacks::{Frame, StackId};
use schemars::JsonSchema;
use serde::Serialize;

use super::Time;
use crate::engine::detect::{CulpritFrom, CulpritUses, Holder, Numbers, Reason, Severity, StackOf};
use crate::engine::fate::Fate;
use crate::engine::findings::Finding;
use crate::engine::snapshot::Snapshot;
use crate::engine::table::Connection;
use crate::model::ProcessKey;

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
    /// The process that opened the connections; of a server that has no slot left (`refused`), the
    /// first that it refused.
    process: FindingProcess<'a>,
    /// The server's address, as in `10.0.0.7:5432`.
    remote: String,
    /// Ids of the connections; of a server that has no slot left (`refused`), those that hold its
    /// slots. One that has ended since is not among the report's `connections`.
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
    /// Identifies it by its reason and its code, the same in every run: 16 hex digits.
    fingerprint: String,
    /// What names `culprit`: it sent the connections' last request, or opened them, or it sends the
    /// statement that their server says was the last one. Null when there is no `culprit`.
    culprit_from: Option<CulpritFrom>,
    /// The functions that send the connections' last statement, where there are several: any of
    /// them may be to blame, and `culprit` is null. Empty otherwise.
    culprit_candidates: Vec<CulpritModel<'a>>,
    /// How uses that ended in the culprit's code went on, as far as they were sampled. Where there
    /// is no `culprit` although `stack` leads to the application, how those of the last user went
    /// on: it gives its connections back, and they were lost by code that did not use them. Null
    /// when other uses say nothing.
    culprit_uses: Option<CulpritUses>,
    /// What became of the connections: `lost` when the code that used each of them last has
    /// returned, `held` when its call still runs.
    fate: Fate,
    /// The server's own words for why it refused connections, the most frequent first. Empty unless
    /// `reason` is `refused`.
    server_messages: Vec<&'a str>,
    /// Who holds the server's slots, the most first, as far as it is traced: `connections` by the
    /// code that used them last. Empty unless `reason` is `refused`.
    holders: Vec<HolderModel<'a>>,
}

/// Connections of a process that the same code uses, to a server that has no slot left.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SlotHolder")]
struct HolderModel<'a> {
    /// The process that opened them.
    process: FindingProcess<'a>,
    /// How many connections there are.
    count: usize,
    /// How many of them have been silent for at least `--silent-after`.
    silent: usize,
    /// How many wait for the server's answer.
    busy: usize,
    /// How many are idle in a transaction.
    in_transaction: usize,
    /// Which stack of the connections `stack` is.
    stack_of: StackOf,
    /// Id of the stack that most of them have in common, among `stacks`. Null when it is unknown.
    stack: Option<StackId>,
    /// The innermost call of `stack` that belongs to the application. Null when there is none.
    culprit: Option<CulpritModel<'a>>,
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
pub(super) struct CulpritModel<'a> {
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
        let no_slot_left = verdict.evidence.no_slot_left();
        Self {
            id: finding.id.to_string(),
            reason: verdict.reason,
            severity: verdict.severity,
            since: Time(snapshot.clock.rfc3339(finding.since)),
            process: FindingProcess::new(snapshot, verdict.process),
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
            fingerprint: snapshot.fingerprint(finding).to_string(),
            culprit_from: snapshot.culprit_from(verdict),
            culprit_candidates: candidates(finding),
            culprit_uses: verdict.culprit_uses,
            fate: verdict.fate,
            server_messages: no_slot_left
                .map(|full| full.said.iter().map(String::as_str).collect())
                .unwrap_or_default(),
            holders: no_slot_left
                .map(|full| {
                    full.holders.iter().map(|one| HolderModel::new(snapshot, one)).collect()
                })
                .unwrap_or_default(),
        }
    }
}

impl<'a> FindingProcess<'a> {
    fn new(snapshot: &Snapshot<'a>, process: ProcessKey) -> Self {
        Self { pid: process.pid, comm: snapshot.comm(process) }
    }
}

impl<'a> HolderModel<'a> {
    fn new(snapshot: &Snapshot<'a>, holder: &'a Holder) -> Self {
        let Holder { process, stack_of, stack, culprit, count, silent, busy, in_transaction } =
            holder;
        Self {
            process: FindingProcess::new(snapshot, *process),
            count: *count,
            silent: *silent,
            busy: *busy,
            in_transaction: *in_transaction,
            stack_of: *stack_of,
            stack: snapshot.stack(stack.as_ref()).map(|stack| stack.id),
            culprit: snapshot.frame(stack.as_ref(), *culprit).map(CulpritModel::new),
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
    pub(super) fn new(frame: &'a Frame) -> Self {
        Self { function: frame.function.as_deref(), file: frame.file.as_deref(), line: frame.line }
    }
}
