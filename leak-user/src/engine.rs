//! Everything to the right of decoding: the table, its judgement and the report.
//!
//! The engine is told [`Fact`]s, one after the other and each with its moment, and nothing else: it
//! asks no kernel, no procfs and no clock. A live trace and the replay of a recording differ only in
//! who tells it. The same facts give the same output, byte for byte.

pub mod detect;
pub mod findings;
pub mod snapshot;
pub mod table;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::engine::detect::Thresholds;
use crate::engine::findings::{Change, Ledger};
use crate::engine::snapshot::{EventCounts, RunInfo, Snapshot};
use crate::engine::table::ConnectionTable;
use crate::model::clock::Clock;
use crate::model::process::ProcessInfo;
use crate::model::{Destination, Event, ProcessKey, StackId, Timestamp};
use crate::outputs::writer::Output;
use leak_stacks::Stack;

/// Most stacks kept. What refers to another one has none.
const MAX_STACKS: usize = 32 * 1024;
/// Most descriptions of processes kept. Another one is known by what the events say of it.
const MAX_PROCESSES: usize = 128 * 1024;
/// Most addresses kept that have a name.
const MAX_DESTINATIONS: usize = 4096;

/// What is settled when a run begins.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Beginning {
    /// Which run it is.
    pub run: RunInfo,
    /// From the kernel's time to the calendar's.
    pub clock: Clock,
    /// From when on things count.
    pub thresholds: Thresholds,
    /// Connections that the table takes.
    pub capacity: usize,
}

/// What the engine can be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// Something happened to connections, or was found out about them.
    Event(Event),
    /// What is known of a process.
    Process(ProcessInfo),
    /// A process has exited.
    Exited(ProcessKey),
    /// Whose an address is that processes connect to.
    Destination {
        /// The address, an IPv4 one never in IPv6's clothes.
        address: IpAddr,
        /// What Kubernetes calls it.
        name: Destination,
    },
    /// A stack that events to come refer to.
    Stack(Arc<Stack>),
    /// An interval is over: judge, and tell what has changed.
    Judge(EventCounts),
    /// The run is over: judge for the last time, and report.
    End(EventCounts),
}

/// The table, what is held against its connections, and where to print it.
pub struct Engine {
    known: Known,
    output: Output,
}

impl Engine {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(beginning: Beginning, output: Output) -> Self {
        Self { known: Known::new(beginning), output }
    }

    /// Learns a fact. `now` is when it became known; it never falls from one fact to the next.
    ///
    /// # Errors
    ///
    /// When the output cannot be written.
    pub fn take(&mut self, fact: &Fact, now: Timestamp) -> io::Result<()> {
        match fact {
            Fact::Event(event) => {
                self.output.event(event, &self.known.beginning.clock)?;
                self.known.table.apply(event, now);
            }
            Fact::Process(info) => self.known.describe(info),
            Fact::Exited(process) => {
                self.known.exited.insert(*process);
            }
            Fact::Destination { address, name } => self.known.name(*address, name),
            Fact::Stack(stack) => self.known.keep_stack(stack),
            Fact::Judge(counts) => {
                let changes = self.known.judge(now);
                self.output.interval(&self.known.snapshot(*counts, now, false), &changes)?;
                self.known.forget_the_unneeded();
            }
            Fact::End(counts) => {
                let changes = self.known.judge(now);
                self.output.report(&self.known.snapshot(*counts, now, true), &changes)?;
            }
        }
        Ok(())
    }

    /// The state as reports see it.
    #[must_use]
    pub fn snapshot(&self, events: EventCounts, now: Timestamp, ended: bool) -> Snapshot<'_> {
        self.known.snapshot(events, now, ended)
    }

    /// Makes visible what was printed so far.
    ///
    /// # Errors
    ///
    /// When the output cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }

    /// The connections.
    #[must_use]
    pub fn table(&self) -> &ConnectionTable {
        &self.known.table
    }

    /// From when on things count.
    #[must_use]
    pub fn thresholds(&self) -> &Thresholds {
        &self.known.beginning.thresholds
    }

    /// Whether a process was described.
    #[must_use]
    pub fn describes(&self, process: ProcessKey) -> bool {
        self.known.processes.contains_key(&process)
    }

    /// What Kubernetes calls an address.
    #[must_use]
    pub fn destination(&self, address: IpAddr) -> Option<&Destination> {
        self.known.destinations.get(&address)
    }

    /// What is known of processes.
    pub fn processes(&self) -> impl Iterator<Item = &ProcessInfo> {
        self.known.processes.values()
    }

    /// Whether it was told of this stack, as it is.
    #[must_use]
    pub fn has_stack(&self, stack: &Arc<Stack>) -> bool {
        self.known.stacks.get(&stack.id) == Some(stack)
    }

    /// Whether a process is known to have exited.
    #[must_use]
    pub fn has_exited(&self, process: ProcessKey) -> bool {
        self.known.exited.contains(&process)
    }

    /// The processes that open findings are about.
    #[must_use]
    pub fn accused(&self) -> BTreeSet<ProcessKey> {
        self.known.accused()
    }

    /// The processes that have opened or hold a connection of the table.
    #[must_use]
    pub fn processes_in_use(&self) -> HashSet<ProcessKey> {
        self.known.processes_in_use()
    }

    /// Whether a finding of severity `leak` is open.
    #[must_use]
    pub fn has_leak(&self) -> bool {
        self.known.ledger.has_leak()
    }
}

/// What the engine was told and has made of it.
struct Known {
    beginning: Beginning,
    table: ConnectionTable,
    ledger: Ledger,
    stacks: HashMap<StackId, Arc<Stack>>,
    processes: HashMap<ProcessKey, ProcessInfo>,
    /// Processes that have exited and that something still refers to.
    exited: HashSet<ProcessKey>,
    /// What Kubernetes calls servers' addresses.
    destinations: HashMap<IpAddr, Destination>,
}

impl Known {
    fn new(beginning: Beginning) -> Self {
        Self {
            table: ConnectionTable::new(beginning.capacity),
            beginning,
            ledger: Ledger::default(),
            stacks: HashMap::new(),
            processes: HashMap::new(),
            exited: HashSet::new(),
            destinations: HashMap::new(),
        }
    }

    fn name(&mut self, address: IpAddr, name: &Destination) {
        if self.destinations.len() < MAX_DESTINATIONS || self.destinations.contains_key(&address) {
            self.destinations.insert(address, name.clone());
        }
    }

    fn describe(&mut self, info: &ProcessInfo) {
        if self.processes.len() < MAX_PROCESSES || self.processes.contains_key(&info.key) {
            self.processes.insert(info.key, info.clone());
        }
    }

    fn keep_stack(&mut self, stack: &Arc<Stack>) {
        if self.stacks.len() < MAX_STACKS || self.stacks.contains_key(&stack.id) {
            self.stacks.insert(stack.id, Arc::clone(stack));
        }
    }

    fn judge(&mut self, now: Timestamp) -> Vec<Change> {
        let mut changes = self.keep_what_exited_leaked();
        let standing = self.ledger.standing();
        let thresholds = &self.beginning.thresholds;
        let verdicts = detect::evaluate(&self.table, &self.stacks, thresholds, &standing, now);
        changes.extend(self.ledger.update(verdicts, &self.table, now));
        changes
    }

    /// What a process had leaked when it exited stays found: often it exits because of that.
    fn keep_what_exited_leaked(&mut self) -> Vec<Change> {
        let mut exited = self.accused();
        exited.retain(|process| self.exited.contains(process));
        if exited.is_empty() {
            return Vec::new();
        }
        for connection in self.table.connections() {
            // A child may live on with the connections of its parent.
            if !connection.held_by.is_empty() {
                exited.remove(&connection.process);
            }
        }
        exited.into_iter().flat_map(|process| self.ledger.process_exited(process)).collect()
    }

    fn accused(&self) -> BTreeSet<ProcessKey> {
        self.ledger.open().into_iter().map(|finding| finding.verdict.process).collect()
    }

    fn processes_in_use(&self) -> HashSet<ProcessKey> {
        let mut processes = HashSet::new();
        for connection in self.table.connections() {
            processes.insert(connection.process);
            processes.extend(&connection.held_by);
        }
        processes
    }

    /// Lets go of stacks that nothing refers to, and of exited processes that nothing reports.
    fn forget_the_unneeded(&mut self) {
        let mut stacks: HashSet<_> = self.table.remembered_stacks().collect();
        for connection in self.table.connections() {
            stacks.extend(connection.opened_by.iter().chain(&connection.last_used_by));
        }
        let mut reported = HashSet::new();
        for finding in self.ledger.open().into_iter().chain(self.ledger.retracted()) {
            reported.insert(finding.verdict.process);
            stacks.extend(&finding.verdict.stack);
        }
        self.stacks.retain(|id, _| stacks.contains(id));
        let in_use = self.processes_in_use();
        let (table, exited) = (&self.table, &self.exited);
        self.processes.retain(|process, _| {
            !exited.contains(process)
                || in_use.contains(process)
                || reported.contains(process)
                || table.process(*process).is_some()
        });
        let processes = &self.processes;
        self.exited.retain(|process| processes.contains_key(process) || reported.contains(process));
    }

    /// The state as reports see it.
    fn snapshot(&self, events: EventCounts, now: Timestamp, ended: bool) -> Snapshot<'_> {
        Snapshot {
            table: &self.table,
            ledger: &self.ledger,
            thresholds: &self.beginning.thresholds,
            stacks: &self.stacks,
            processes: &self.processes,
            exited: &self.exited,
            destinations: &self.destinations,
            run: &self.beginning.run,
            events,
            now,
            ended,
            clock: self.beginning.clock,
        }
    }
}
