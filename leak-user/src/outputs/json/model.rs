//! The types of the JSON report, `pgsocktrace.report/1`, from which its schema is generated, too.
//!
//! Fields are written in the order in which they stand here, and described in the schema by their
//! comments. What is unknown is `null`.

mod connection;
mod finding;
mod listing;
mod pools;
mod process;
mod servers;
mod stack;
mod time;
mod waiting;

use std::collections::BTreeMap;

use leak_stacks::{StackCounts, StackId, TruncationReason};
use schemars::JsonSchema;
use serde::Serialize;

use self::connection::ConnectionModel;
pub(in crate::outputs) use self::finding::FindingModel;
pub(in crate::outputs) use self::listing::Listing;
use self::pools::PoolModel;
use self::process::ProcessModel;
use self::servers::ServerModel;
pub(in crate::outputs) use self::servers::ServerState;
use self::stack::StackModel;
pub(in crate::outputs) use self::time::Time;
use crate::engine::fate::Fates;
use crate::engine::findings::Suppressed;
use crate::engine::snapshot::{RunVerdict, Snapshot};
use crate::model::time::rfc3339;
use crate::model::{Cost, StackCopies};

const SCHEMA: &str = "pgsocktrace.report/1";

/// The report of `pgsocktrace -o json`. What is unknown is null, never a made-up value. Fields and
/// values may be added under this name; nothing that is there changes its meaning.
#[derive(Serialize, JsonSchema)]
#[schemars(title = SCHEMA)]
pub(in crate::outputs) struct Report<'a> {
    /// Name of the schema.
    #[schemars(extend("const" = SCHEMA))]
    schema: &'static str,
    /// Version of pgsocktrace.
    version: &'a str,
    /// Name of the machine that was traced.
    host: &'a str,
    /// Release of its kernel, as `uname -r` prints it.
    kernel: &'a str,
    /// What was attached to the kernel, by purpose, as in `"send": "tp_btf/sock_send_length"`.
    hooks: &'a BTreeMap<String, String>,
    /// When tracing began.
    started_at: Time,
    /// When tracing ended: the moment that the report is about. Null while tracing goes on.
    ended_at: Option<Time>,
    /// The server ports that were traced.
    ports: &'a [u16],
    /// What the run comes to so far.
    verdict: VerdictModel,
    /// What became of the kernel's events.
    events: EventsModel,
    /// How the stacks that were wanted came out.
    stack_quality: StackQualityModel,
    /// What the kernel programs did with the stacks of connects and requests.
    stack_copies: StackCopies,
    /// Runs of the kernel programs that the kernel skipped, whatever socket they were about.
    skipped_runs: u64,
    /// What tracing cost.
    cost: CostModel,
    /// The processes that have, or had while they were traced, a connection; by PID.
    processes: Vec<ProcessModel<'a>>,
    /// The open connections, by id.
    connections: Vec<ConnectionModel<'a>>,
    /// The stacks that connections and findings refer to, by id.
    stacks: BTreeMap<&'a StackId, StackModel<'a>>,
    /// The findings that stand, then the latest of those that were retracted.
    findings: Vec<FindingModel<'a>>,
    /// The servers that `--pg-dsn` names, by name.
    servers: Vec<ServerModel<'a>>,
    /// The rules of `--suppress`, with what they hide.
    suppressed: Vec<SuppressedModel<'a>>,
    /// The programs' own pools that could be read, by process.
    pools: Vec<PoolModel<'a>>,
}

/// A rule of `--suppress`.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Suppressed")]
struct SuppressedModel<'a> {
    /// Why it is there.
    why: &'a str,
    /// When it ends. Null when it does not.
    until: Option<Time>,
    /// How many findings it has hidden.
    count: usize,
}

impl<'a> SuppressedModel<'a> {
    fn new(suppressed: &'a Suppressed) -> Self {
        let (rule, count) = (&suppressed.rule, suppressed.count());
        Self { why: &rule.why, until: rule.until.map(|at| Time(rfc3339(at))), count }
    }
}

/// What a run comes to. There is no leak only when all three are 0.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Verdict")]
struct VerdictModel {
    /// Open findings of severity `leak`.
    leaks: usize,
    /// Open findings of severity `suspect`.
    suspects: usize,
    /// Silent connections that are older than the trace, were not used since, and are in no
    /// transaction that anybody knows of: they may be leaked or at rest in a pool.
    unknown_older: usize,
}

impl VerdictModel {
    fn new(verdict: RunVerdict) -> Self {
        let RunVerdict { leaks, suspects, unknown_older } = verdict;
        Self { leaks, suspects, unknown_older }
    }
}

/// What became of the kernel's events.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Events")]
struct EventsModel {
    /// Events received from the kernel programs.
    received: u64,
    /// Events that the kernel programs could not hand over because the ring buffer was full.
    lost: u64,
    /// Connections that the kernel's list of sockets corrected: added, closed or changed.
    reconciled: u64,
}

/// How the stacks that were wanted came out.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "StackQuality")]
struct StackQualityModel {
    /// Stacks that are known down to the thread's first function.
    complete: u64,
    /// Stacks without their outer frames.
    truncated: u64,
    /// Stacks without any frame.
    none: u64,
    /// Stacks that are not complete, by reason: the values of a stack's `quality_reason`.
    reasons: BTreeMap<TruncationReason, u64>,
}

/// What tracing cost, in cores kept busy on average: 0.01 is one per cent of one core.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Cost")]
struct CostModel {
    /// By the kernel programs, measured for a second in thirty. Null when the kernel does not tell,
    /// which it does only to those with `CAP_SYS_ADMIN`.
    kernel_cores: Option<f64>,
    /// By the collector. Null before the first interval is over.
    collector_cores: Option<f64>,
}

impl<'a> Report<'a> {
    pub(in crate::outputs) fn new(snapshot: &Snapshot<'a>) -> Self {
        let Snapshot { table, ledger, run, health, .. } = *snapshot;
        let mut processes: Vec<_> = table.processes().collect();
        processes.sort_unstable_by_key(|(key, _)| *key);
        let mut connections: Vec<_> = table.connections().collect();
        connections.sort_unstable_by_key(|connection| connection.id);
        let findings: Vec<_> = ledger.open().into_iter().chain(ledger.retracted()).collect();
        let fates = Fates::new(table, snapshot.stacks);
        Self {
            schema: SCHEMA,
            version: &run.version,
            host: &run.host,
            kernel: &run.kernel,
            hooks: &run.hooks,
            started_at: Time(rfc3339(run.started_at)),
            ended_at: snapshot.ended.then(|| Time(snapshot.clock.rfc3339(snapshot.now))),
            ports: &run.ports,
            verdict: VerdictModel::new(snapshot.verdict()),
            events: EventsModel {
                received: health.received,
                lost: health.lost,
                reconciled: table.losses().reconciled(),
            },
            stack_quality: StackQualityModel::new(&health.stacks),
            stack_copies: health.copies,
            skipped_runs: health.skipped_runs,
            cost: CostModel::new(&health.cost),
            processes: processes
                .into_iter()
                .map(|(key, tally)| ProcessModel::new(snapshot, key, tally))
                .collect(),
            stacks: stack::referred_to(snapshot, &connections, &findings),
            connections: connections
                .into_iter()
                .map(|connection| ConnectionModel::new(snapshot, &fates, connection))
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
            suppressed: snapshot.suppressed.iter().map(SuppressedModel::new).collect(),
            pools: snapshot.program_pools().map(|read| PoolModel::new(snapshot, read)).collect(),
        }
    }
}

impl StackQualityModel {
    fn new(counts: &StackCounts) -> Self {
        let StackCounts { complete, truncated, none, .. } = *counts;
        Self { complete, truncated, none, reasons: counts.reasons().collect() }
    }
}

impl CostModel {
    fn new(cost: &Cost) -> Self {
        Self { kernel_cores: cost.kernel_cores(), collector_cores: cost.collector_cores() }
    }
}

#[cfg(test)]
mod tests;
