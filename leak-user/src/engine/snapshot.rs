//! Everything that a report is made from, at one moment.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::engine::detect::Thresholds;
use crate::engine::findings::Ledger;
use crate::engine::table::ConnectionTable;
use crate::model::clock::Clock;
use crate::model::cost::Cost;
use crate::model::process::ProcessInfo;
use crate::model::{Destination, ProcessKey, StackId, Timestamp};
use leak_stacks::{Stack, StackCounts};

/// What stays the same for a whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunInfo {
    /// Version of pgsocktrace.
    pub version: String,
    /// Name of the machine.
    pub host: String,
    /// Release of its kernel.
    pub kernel: String,
    /// What was attached, per purpose.
    pub hooks: BTreeMap<String, String>,
    /// Server ports traced.
    pub ports: Vec<u16>,
    /// When tracing began.
    pub started_at: SystemTime,
}

/// How the collector fared, and what it cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventCounts {
    /// Events received from the kernel.
    pub received: u64,
    /// Events lost on the way.
    pub lost: u64,
    /// Stacks that were wanted and could not be captured or unwound.
    pub stacks_skipped: u64,
    /// How the stacks that were wanted came out.
    pub stacks: StackCounts,
    /// How the kernel programs fared with copying stacks.
    #[serde(default)]
    pub copies: StackCopies,
    /// Runs of the kernel programs that the kernel skipped, whatever socket they were about.
    #[serde(default)]
    pub skipped_runs: u64,
    /// What tracing has cost.
    #[serde(default)]
    pub cost: Cost,
}

/// Stacks of connects and requests, by what the kernel programs did with each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StackCopies {
    /// Copied.
    pub recorded: u64,
    /// Left out because the second's budget was spent.
    pub over_budget: u64,
    /// Left out because there was no room for it: all of `--stack-slots` taken, or no memory.
    pub no_slot: u64,
    /// Not readable.
    pub unreadable: u64,
}

impl StackCopies {
    /// The share that was copied; `None` when there was nothing to copy.
    #[must_use]
    pub fn share(&self) -> Option<f64> {
        let Self { recorded, over_budget, no_slot, unreadable } = *self;
        let all = recorded + over_budget + no_slot + unreadable;
        (all > 0).then(|| recorded as f64 / all as f64)
    }
}

/// Everything that a report is made from, at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a> {
    /// The connections.
    pub table: &'a ConnectionTable,
    /// The findings.
    pub ledger: &'a Ledger,
    /// From when on things count.
    pub thresholds: &'a Thresholds,
    /// Stacks by identity.
    pub stacks: &'a HashMap<StackId, Arc<Stack>>,
    /// What is known of processes.
    pub processes: &'a HashMap<ProcessKey, ProcessInfo>,
    /// Those of them that have exited.
    pub exited: &'a HashSet<ProcessKey>,
    /// What Kubernetes calls servers' addresses.
    pub destinations: &'a HashMap<IpAddr, Destination>,
    /// What stays the same.
    pub run: &'a RunInfo,
    /// How the collector fared.
    pub events: EventCounts,
    /// The moment.
    pub now: Timestamp,
    /// Whether tracing ended at this moment.
    pub ended: bool,
    /// From the kernel's time to the calendar's.
    pub clock: Clock,
}

impl<'a> Snapshot<'a> {
    /// Name of a process: of the process where it is known, else of the first thread seen.
    pub(crate) fn comm(&self, process: ProcessKey) -> Option<&'a str> {
        let described = self.processes.get(&process).map(|info| info.comm.as_str());
        described.or_else(|| self.table.process(process)?.comm.as_deref())
    }

    /// What Kubernetes calls a server, where it was asked and knows.
    pub(crate) fn destination(&self, remote: SocketAddr) -> Option<&'a Destination> {
        self.destinations.get(&remote.ip().to_canonical())
    }

    /// A stack, when it is at hand.
    pub(crate) fn stack(&self, id: Option<&StackId>) -> Option<&'a Stack> {
        self.stacks.get(id?).map(Arc::as_ref)
    }
}
