//! The table of connections, and its judgement.
//!
//! The engine takes [`Fact`]s, one after the other and each with its moment, and nothing else: it
//! reads no kernel, no procfs and no clock, and prints nothing. A live trace and the replay of a
//! recording differ only in who tells it the facts. The same facts give the same findings.

pub mod detect;
pub mod doubt;
pub mod fate;
pub mod findings;
pub mod senders;
pub mod snapshot;
pub mod table;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::engine::detect::{Memory, Thresholds, Verdict, View};
use crate::engine::findings::{Change, Ledger, Subject, Suppressed, Suppression};
use crate::engine::senders::Senders;
use crate::engine::snapshot::{RunInfo, Snapshot};
use crate::engine::table::{Connection, ConnectionTable};
use crate::model::time::Clock;
use crate::model::{
    ConnectionId, Destination, Fact, Health, ProcessInfo, ProcessKey, StackId, Timestamp,
    Whereabouts,
};
use leak_stacks::Stack;

/// Most stacks kept. References to stacks beyond this limit resolve to none.
const MAX_STACKS: usize = 32 * 1024;
/// Most process descriptions kept. Of other processes only their connections' events are known.
const MAX_PROCESSES: usize = 128 * 1024;
/// Most addresses kept that have a name.
const MAX_DESTINATIONS: usize = 4096;

/// Most connections that a table can be made for.
pub const MAX_CONNECTIONS: u32 = 4_000_000;
/// Shortest interval and shortest silence: nothing is judged more often.
pub const SHORTEST_PERIOD: Duration = Duration::from_millis(100);
/// Longest interval and longest silence: sums and multiples of it never overflow.
pub const LONGEST_PERIOD: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What stays the same for a whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Beginning {
    /// Version, host, hooks and ports.
    pub run: RunInfo,
    /// Converts the kernel's time to calendar time.
    pub clock: Clock,
    /// From when on things count.
    pub thresholds: Thresholds,
    /// Most connections in the table.
    pub capacity: usize,
}

impl Beginning {
    /// Whether a run could have begun like this: the numbers of a recording are not trusted.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        let Self { run: _, clock: _, thresholds, capacity } = self;
        let period = SHORTEST_PERIOD..=LONGEST_PERIOD;
        period.contains(&thresholds.silent_after)
            && period.contains(&thresholds.interval)
            && (1..=MAX_CONNECTIONS as usize).contains(capacity)
    }
}

/// The table of connections, and the findings about them.
pub struct Engine {
    known: Known,
}

impl Engine {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(beginning: Beginning) -> Self {
        Self { known: Known::new(beginning) }
    }

    /// Hides findings, from now on.
    pub fn suppress(&mut self, rules: &[Suppression]) {
        self.known.suppressed = rules.iter().cloned().map(Suppressed::new).collect();
    }

    /// Learns a fact, and returns how findings have changed when it is one that asks for a
    /// judgement. `now` is when the fact became known; it never falls from one fact to the next.
    ///
    /// After a judgement, and once its [`Snapshot`] has been shown, [`Engine::forget_the_unneeded`]
    /// is to be called.
    pub fn take(&mut self, fact: &Fact, now: Timestamp) -> Vec<Change> {
        let known = &mut self.known;
        match fact {
            Fact::Event(event) => known.table.apply(event, now, &mut known.memory),
            Fact::Process(info) => known.describe(info),
            Fact::Exited(process) => {
                known.exited.insert(*process);
            }
            Fact::Destination { address, name } => known.name(*address, name),
            Fact::Stack(stack) => known.keep_stack(stack),
            Fact::Sender { process, statement, code } => {
                known.senders.found(*process, statement, code);
            }
            Fact::Learnt(learnt) => known.senders.remember(learnt),
            Fact::Judge(health) | Fact::End(health) => {
                known.health.clone_from(health);
                return known.judge(now);
            }
        }
        Vec::new()
    }

    /// The state as outputs see it. `ended` says whether the run has ended.
    #[must_use]
    pub fn snapshot(&self, now: Timestamp, ended: bool) -> Snapshot<'_> {
        self.known.snapshot(now, ended)
    }

    /// Drops stacks that nothing refers to, and exited processes that no output shows any more.
    pub fn forget_the_unneeded(&mut self) {
        self.known.forget_the_unneeded();
    }

    /// The connections.
    #[must_use]
    pub fn table(&self) -> &ConnectionTable {
        &self.known.table
    }

    /// Connections silent for at least `silent_for` that only one thread has used, with the latest
    /// request's number and its process and thread; not those whose thread is known to be gone.
    pub fn bound_to_threads(
        &self,
        silent_for: Duration,
        now: Timestamp,
    ) -> impl Iterator<Item = (ConnectionId, u64, (u32, u32))> {
        self.known.memory.bound_to_threads(&self.known.table, silent_for, now)
    }

    /// Statements of whose code nothing is known, each with the process whose connection it is.
    pub fn unknown_statements(&self) -> impl Iterator<Item = (ProcessKey, &str)> {
        let senders = &self.known.senders;
        let connections = self.known.table.connections();
        connections.filter_map(|known| Some((known.process, senders.unknown(known)?)))
    }

    /// How the tracer fares, as the latest judgement was told.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.known.health
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
}

/// What the engine was told and has made of it.
struct Known {
    beginning: Beginning,
    table: ConnectionTable,
    /// What detectors remember beside it.
    memory: Memory,
    ledger: Ledger,
    stacks: HashMap<StackId, Arc<Stack>>,
    senders: Senders,
    processes: HashMap<ProcessKey, ProcessInfo>,
    /// Processes that have exited and that something still refers to.
    exited: HashSet<ProcessKey>,
    /// What Kubernetes calls servers' addresses.
    destinations: HashMap<IpAddr, Destination>,
    health: Health,
    /// What is not told.
    suppressed: Vec<Suppressed>,
}

impl Known {
    fn new(beginning: Beginning) -> Self {
        Self {
            table: ConnectionTable::new(beginning.capacity),
            beginning,
            memory: Memory::default(),
            ledger: Ledger::default(),
            stacks: HashMap::new(),
            senders: Senders::default(),
            processes: HashMap::new(),
            exited: HashSet::new(),
            destinations: HashMap::new(),
            health: Health::default(),
            suppressed: Vec::new(),
        }
    }

    fn name(&mut self, address: IpAddr, name: &Destination) {
        if self.destinations.len() < MAX_DESTINATIONS || self.destinations.contains_key(&address) {
            self.destinations.insert(address, name.clone());
        }
    }

    fn describe(&mut self, info: &ProcessInfo) {
        if self.processes.len() < MAX_PROCESSES || self.processes.contains_key(&info.key) {
            self.senders.describe(info);
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
        self.learn_who_sends_what();
        let accusations = self.ledger.accusations();
        let Self { table, memory, stacks, senders, beginning, .. } = self;
        let thresholds = &beginning.thresholds;
        let view = View::new(table, memory, stacks, senders, thresholds, &accusations);
        let verdicts = detect::evaluate(view, now);
        let verdicts = self.without_suppressed(verdicts, now);
        changes.extend(self.ledger.update(verdicts, &self.table, now));
        self.ledger.note_teardown(&self.exited, now);
        changes
    }

    fn learn_who_sends_what(&mut self) {
        for connection in self.table.connections() {
            let stack = connection.callers.last_used_by.as_ref();
            if let Some(stack) = stack.and_then(|id| self.stacks.get(id)) {
                self.senders.learn(connection, stack);
            }
        }
    }

    /// Leaves out, and counts, what is not to be told.
    fn without_suppressed(&mut self, mut verdicts: Vec<Verdict>, now: Timestamp) -> Vec<Verdict> {
        let mut rules = std::mem::take(&mut self.suppressed);
        if !rules.is_empty() {
            let at = self.beginning.clock.wall(now);
            verdicts.retain(|verdict| {
                let subject = self.subject(verdict);
                let hiding = rules.iter_mut().find(|one| one.rule.hides(&subject, at));
                hiding.map(|one| one.add(verdict)).is_none()
            });
        }
        self.suppressed = rules;
        verdicts
    }

    fn subject<'a>(&'a self, verdict: &'a Verdict) -> Subject<'a> {
        let stack = verdict.stack.and_then(|id| self.stacks.get(&id));
        let by_stack = stack.and_then(|stack| stack.frames.get(verdict.culprit?.frame));
        let culprit = by_stack.or_else(|| verdict.sender.as_ref()?.only());
        let described = self.processes.get(&verdict.process).map(|info| info.comm.as_str());
        let connections = verdict.connections.iter().filter_map(|&id| self.table.get(id));
        Subject {
            verdict,
            comm: described.or_else(|| self.table.process(verdict.process)?.comm.as_deref()),
            function: culprit.and_then(|frame| frame.function.as_deref()),
            applications: connections.map(Connection::application_name).collect(),
        }
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
        self.table.judged();
        let mut stacks: HashSet<_> = self.memory.stacks().collect();
        for connection in self.table.connections() {
            let callers = &connection.callers;
            stacks.extend(callers.opened_by.iter().chain(&callers.last_used_by));
            if let Some(Whereabouts::At(stack)) = &callers.user_seen {
                stacks.insert(stack);
            }
        }
        stacks.extend(self.table.all_waiting().flat_map(|(_, waiting)| waiting.stacks()));
        let mut reported = HashSet::new();
        for finding in self.ledger.open().into_iter().chain(self.ledger.retracted()) {
            reported.insert(finding.verdict.process);
            stacks.extend(&finding.verdict.stack);
            let full = finding.verdict.evidence.no_slot_left();
            stacks.extend(full.iter().flat_map(|full| &full.holders).flat_map(|one| &one.stack));
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
        self.table.keep_waiting(|process| in_use.contains(&process));
        let processes = &self.processes;
        self.exited.retain(|process| processes.contains_key(process) || reported.contains(process));
        self.senders.keep(|process| processes.contains_key(&process));
    }

    /// The state as reports see it.
    fn snapshot(&self, now: Timestamp, ended: bool) -> Snapshot<'_> {
        Snapshot {
            table: &self.table,
            ledger: &self.ledger,
            thresholds: &self.beginning.thresholds,
            stacks: &self.stacks,
            processes: &self.processes,
            exited: &self.exited,
            destinations: &self.destinations,
            run: &self.beginning.run,
            health: &self.health,
            suppressed: &self.suppressed,
            senders: &self.senders,
            now,
            ended,
            clock: self.beginning.clock,
        }
    }
}
