//! Everything that a report is made from, at one moment.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::engine::detect::{Culprit, CulpritFrom, Severity, Thresholds, Verdict};
use crate::engine::findings::{Finding, Fingerprint, Ledger, Suppressed};
use crate::engine::senders::Senders;
use crate::engine::table::{Connection, ConnectionTable, ProgramPool, Waiting};
use crate::model::time::Clock;
use crate::model::{Destination, Health, ProcessInfo, ProcessKey, StackId, Timestamp};
use leak_stacks::{Frame, Stack};

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
    /// How the tracer fares.
    pub health: &'a Health,
    /// What is not told, and how much of it there is.
    pub suppressed: &'a [Suppressed],
    /// Who sends which statement.
    pub senders: &'a Senders,
    /// The moment.
    pub now: Timestamp,
    /// Whether tracing ended at this moment.
    pub ended: bool,
    /// From the kernel's time to the calendar's.
    pub clock: Clock,
}

/// What a run comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunVerdict {
    /// Open findings of severity `leak`.
    pub leaks: usize,
    /// Open findings of severity `suspect`.
    pub suspects: usize,
    /// Silent connections that are older than the trace, were not used since, and are in no
    /// transaction that anybody knows of: they may be leaked or at rest in a pool.
    pub unknown_older: usize,
}

impl<'a> Snapshot<'a> {
    /// What the run comes to so far.
    #[must_use]
    pub fn verdict(&self) -> RunVerdict {
        RunVerdict {
            leaks: self.ledger.open_of(Severity::Leak),
            suspects: self.ledger.open_of(Severity::Suspect),
            unknown_older: self.unknown_older().count(),
        }
    }

    /// The connections that [`RunVerdict::unknown_older`] counts.
    pub(crate) fn unknown_older(&self) -> impl Iterator<Item = &'a Connection> {
        let (now, silent_after) = (self.now, self.thresholds.silent_after);
        let recently = self.thresholds.recently(now);
        self.table
            .connections()
            .filter(move |known| known.is_unjudged() && known.silent_for(now) >= silent_after)
            .filter(move |known| known.place_now(recently).is_none())
    }

    /// The programs' own pools, as far as they were just read.
    pub(crate) fn program_pools(&self) -> impl Iterator<Item = ProgramPool<'a>> {
        let recently = self.thresholds.recently(self.now);
        self.table.program_pools().filter(move |read| read.at >= recently)
    }

    /// The server that most of a pool's connections lead to.
    pub(crate) fn remote_of(&self, read: ProgramPool<'_>) -> Option<SocketAddr> {
        let mut counts: BTreeMap<SocketAddr, usize> = BTreeMap::new();
        let known = read.pool.connections.iter().filter_map(|one| self.table.get(one.id));
        for connection in known {
            *counts.entry(connection.endpoints.remote).or_default() += 1;
        }
        counts.into_iter().max_by_key(|&(_, count)| count).map(|(remote, _)| remote)
    }

    /// Who waits for a connection in a process; `None`: nobody has looked lately.
    pub(crate) fn waiting_in(&self, process: ProcessKey) -> Option<&'a Waiting> {
        let waiting = self.table.waiting(process).filter(|_| !self.exited.contains(&process))?;
        waiting.is_fresh(self.now, self.thresholds.interval).then_some(waiting)
    }

    /// Who waits for a connection, by process.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (ProcessKey, &'a Waiting)> {
        let (now, interval) = (self.now, self.thresholds.interval);
        let fresh = self.table.all_waiting();
        fresh.filter(move |(process, waiting)| {
            waiting.is_fresh(now, interval) && !self.exited.contains(process)
        })
    }

    /// How long the run has lasted.
    #[must_use]
    pub fn lasted(&self) -> Duration {
        self.clock.wall(self.now).duration_since(self.run.started_at).unwrap_or_default()
    }

    /// Name of a process: of the process where it is known, else of the first thread seen.
    pub(crate) fn comm(&self, process: ProcessKey) -> Option<&'a str> {
        let described = self.processes.get(&process).map(|info| info.comm.as_str());
        described.or_else(|| self.table.process(process)?.comm.as_deref())
    }

    /// What Kubernetes calls a server, where it was asked and knows.
    pub(crate) fn destination(&self, remote: SocketAddr) -> Option<&'a Destination> {
        self.destinations.get(&remote.ip().to_canonical())
    }

    /// The frame that a verdict blames, when its stack is at hand, or else the code that sends the
    /// last statement.
    pub(crate) fn culprit<'b>(&self, verdict: &'b Verdict) -> Option<&'b Frame>
    where
        'a: 'b,
    {
        let by_stack = self.frame(verdict.stack.as_ref(), verdict.culprit);
        by_stack.or_else(|| verdict.sender.as_ref()?.only())
    }

    /// What names [`Self::culprit`].
    pub(crate) fn culprit_from(&self, verdict: &Verdict) -> Option<CulpritFrom> {
        self.culprit(verdict)?;
        Some(verdict.culprit.map_or(CulpritFrom::Statement, |culprit| culprit.from))
    }

    /// The frame of a stack that is to blame, when the stack is at hand.
    pub(crate) fn frame(
        &self,
        stack: Option<&StackId>,
        culprit: Option<Culprit>,
    ) -> Option<&'a Frame> {
        self.stack(stack)?.frames.get(culprit?.frame)
    }

    /// What identifies a finding from run to run.
    pub(crate) fn fingerprint(&self, finding: &Finding) -> Fingerprint {
        let verdict = &finding.verdict;
        Fingerprint::new(verdict.reason, self.culprit(verdict), self.comm(verdict.process))
    }

    /// A stack, when it is at hand.
    pub(crate) fn stack(&self, id: Option<&StackId>) -> Option<&'a Stack> {
        self.stacks.get(id?).map(Arc::as_ref)
    }
}
