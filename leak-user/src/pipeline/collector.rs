//! What the event loop works on: events go into the table, the table is judged, judgements are
//! printed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context as _;
use leak_common::connection::Connection;
use tokio::task::{JoinHandle, spawn_blocking};

use super::Ended;
use super::output::Output;
use super::resolver::{Answer, ResolvedStack, ResolverThread};
use super::targets::Targets;
use crate::cli::TraceArgs;
use crate::detect::{self, Thresholds};
use crate::event::{
    ConnectionId, Event, ListedSocket, ProcessKey, StackId, StackRole, TcpState, Timestamp, Usage,
};
use crate::findings::{Change, Ledger};
use crate::inventory::{Inventory, InventoryError};
use crate::kernel::Tracer;
use crate::process::{self, ProcessInfo};
use crate::report::{Clock, EventCounts, RunInfo, Snapshot};
use crate::stacks::Stack;
use crate::table::{self, ConnectionTable};
use crate::{clock, decode};

/// A stack that came out truncated makes the kernel programs copy this many times as much.
const STACK_GROWTH: u32 = 2;

/// The state as reports see it. A macro, because the output is borrowed apart from the rest.
macro_rules! snapshot {
    ($collector:ident, $now:ident, ended: $ended:literal) => {
        Snapshot {
            table: &$collector.table,
            ledger: &$collector.ledger,
            thresholds: &$collector.thresholds,
            stacks: &$collector.stacks,
            processes: &$collector.processes,
            run: &$collector.run,
            events: $collector.event_counts(),
            now: $now,
            ended: $ended,
            clock: $collector.clock,
        }
    };
}

/// Events handled at a stretch, so that a storm of them never keeps the clock waiting.
pub(super) const BATCH: usize = 1024;
/// More than fit into the ring buffer of the usual size.
const MAX_BATCHES: usize = 256;

/// Everything known during a trace.
pub(super) struct Collector {
    ports: Vec<u16>,
    thresholds: Thresholds,
    tracer: Tracer,
    targets: Targets,
    table: ConnectionTable,
    ledger: Ledger,
    resolver: ResolverThread,
    stacks: HashMap<StackId, Arc<Stack>>,
    processes: HashMap<ProcessKey, ProcessInfo>,
    /// Those of them that are gone and that nothing else remembers.
    departed: HashSet<ProcessKey>,
    /// Where each connection's slot was when the slots were last read.
    slots: HashMap<ConnectionId, usize>,
    events: Events,
    /// What it was warned of already.
    warned: Warned,
    run: RunInfo,
    clock: Clock,
    output: Output,
}

/// How the events from the kernel programs fared here.
#[derive(Clone, Copy, Debug, Default)]
struct Events {
    received: u64,
    undecodable: u64,
}

/// Warnings that are given once.
#[derive(Clone, Copy, Debug, Default)]
struct Warned {
    namespaces: bool,
    holders: bool,
    table_full: bool,
}

impl Collector {
    pub(super) fn new(args: &TraceArgs, tracer: Tracer, targets: Targets) -> anyhow::Result<Self> {
        let capacity = usize::try_from(args.resources.max_connections).unwrap_or(usize::MAX);
        let run = run_info(args, &tracer);
        let clock = Clock::new(clock::now(), SystemTime::now());
        let mut collector = Self {
            ports: args.port.clone(),
            thresholds: Thresholds {
                silent_after: args.silent_after,
                interval: args.interval,
                limit: args.limit,
            },
            tracer,
            targets,
            table: ConnectionTable::new(capacity),
            ledger: Ledger::default(),
            resolver: ResolverThread::start().context("the resolver's thread cannot be started")?,
            stacks: HashMap::new(),
            processes: HashMap::new(),
            departed: HashSet::new(),
            slots: HashMap::new(),
            events: Events::default(),
            warned: Warned::default(),
            run,
            clock,
            output: Output::new(args.output, clock),
        };
        for process in collector.targets.roots().to_vec() {
            collector.meet(process, None);
        }
        Ok(collector)
    }

    /// What is traced, in words.
    pub(super) fn subject(&self) -> String {
        let ports: Vec<_> = self.ports.iter().map(u16::to_string).collect();
        format!("{}, server port {}", self.targets.describe(), ports.join(", "))
    }

    /// Whether a traced process still lives.
    pub(super) fn anyone_left(&self) -> bool {
        self.targets.anyone_left(|| self.tracer.pids())
    }

    /// Takes in all events that have come. What comes meanwhile may have to wait: a storm never ends.
    pub(super) fn drain_all(&mut self) -> anyhow::Result<()> {
        for _ in 0..MAX_BATCHES {
            if self.drain(BATCH)? < BATCH {
                break;
            }
        }
        Ok(())
    }

    /// Takes in up to `limit` events and says how many there were.
    pub(super) fn drain(&mut self, limit: usize) -> anyhow::Result<usize> {
        let mut decoded = Vec::new();
        let count = self.tracer.drain(limit, |bytes| decoded.push(decode::event(bytes)));
        for decoded in decoded {
            self.events.received += 1;
            match decoded {
                Ok(decoded) => {
                    let wanted = self.is_wanted(&decoded.event);
                    if wanted {
                        self.take_event(&decoded.event)?;
                    }
                    if let (true, Event::Opened { id, at, .. }, Some(stack)) =
                        (wanted, &decoded.event, decoded.stack)
                    {
                        self.resolver.resolve(*id, StackRole::OpenedBy, *at, stack);
                    }
                }
                Err(error) => {
                    self.events.undecodable += 1;
                    log::warn!("{error}; it is left out");
                }
            }
        }
        self.output.flush()?;
        Ok(count)
    }

    /// Whether an event is about a process that was asked for. Events that do not say whose
    /// connection they are about are wanted if the connection is known.
    fn is_wanted(&mut self, event: &Event) -> bool {
        match event {
            Event::Opened { caller, .. } => self.targets.wants(caller.process, &caller.comm),
            Event::Closed { usage, .. } | Event::Used { usage, .. } => {
                self.targets.wants(usage.opener.process, &usage.opener.comm)
            }
            Event::Established { id, .. } | Event::Failed { id, .. } => {
                self.table.get(*id).is_some()
            }
            Event::Inventory { .. } | Event::StackResolved { .. } => true,
        }
    }

    fn take_event(&mut self, event: &Event) -> anyhow::Result<()> {
        if let Event::Opened { caller, .. } = event {
            self.meet(caller.process, Some(&caller.comm));
        }
        self.output.event(event)?;
        self.table.apply(event, clock::now());
        Ok(())
    }

    /// Looks at a process when it first appears: it may be gone at the next look. `comm` is what is
    /// known of its name when it is gone already.
    fn meet(&mut self, process: ProcessKey, comm: Option<&str>) {
        if self.processes.contains_key(&process) {
            return;
        }
        let info = process::describe(process).or_else(|error| {
            log::debug!("process {}: {error}", process.pid);
            comm.map(|comm| ProcessInfo::gone(process, comm)).ok_or(error)
        });
        if let Ok(info) = info {
            self.processes.insert(process, info);
            self.resolver.first_sight(process);
        }
    }

    /// Takes in the kernel's counters of every connection. Returns the connections that are closed but
    /// not destroyed, which nothing else lists.
    fn take_slots(&mut self, slots: Vec<(usize, Connection)>) -> Vec<ListedSocket> {
        let mut undestroyed = Vec::new();
        self.slots.clear();
        let now = clock::now();
        for (slot, connection) in slots {
            match decode::slot(&connection) {
                Ok(Some(event)) => {
                    if !self.is_wanted(&event) {
                        continue;
                    }
                    if let Event::Used { id, usage } = &event {
                        self.slots.insert(*id, slot);
                        self.meet(usage.opener.process, Some(&usage.opener.comm));
                        if usage.tcp_state == TcpState::Close {
                            undestroyed.push(self.closed_but_held(*id, usage));
                        }
                    }
                    self.table.apply(&event, now);
                }
                Ok(None) => {}
                Err(error) => {
                    self.events.undecodable += 1;
                    log::warn!("{error}; it is left out");
                }
            }
        }
        undestroyed
    }

    /// Begins to list what exists, beside the event loop.
    pub(super) fn start_inventory(
        &self,
    ) -> anyhow::Result<JoinHandle<Result<Inventory, InventoryError>>> {
        let ports = self.ports.clone();
        let scope = self.targets.scope(|| self.tracer.pids());
        let known: HashSet<_> = self.table.connections().map(|connection| connection.id).collect();
        Ok(spawn_blocking(move || Inventory::take(&ports, &scope, &known)))
    }

    /// Corrects the table by what exists, and has the stacks of what has fallen silent resolved.
    pub(super) fn take_inventory(
        &mut self,
        inventory: Result<Inventory, InventoryError>,
    ) -> anyhow::Result<()> {
        let slots: Vec<_> = self.tracer.connections().collect();
        // Whatever ended until now is told before the counters and the list say that it is gone.
        self.drain_all()?;
        let undestroyed = self.take_slots(slots);
        match inventory {
            Ok(mut inventory) => {
                self.warn_of_gaps(&inventory);
                inventory.sockets.extend(undestroyed);
                self.keep_wanted(&mut inventory.sockets);
                let event = inventory.into_event();
                self.table.apply(&event, clock::now());
            }
            Err(error) => log::warn!("the connections that exist cannot be listed: {error}"),
        }
        self.resolve_last_uses();
        self.forget_the_gone();
        Ok(())
    }

    /// What sock_diag would say of a connection that is closed but held by its process: it lists none.
    /// What only the list knows stays as it was.
    fn closed_but_held(&self, id: ConnectionId, usage: &Usage) -> ListedSocket {
        let known = self.table.get(id);
        let used = |moment: Option<Timestamp>| moment.unwrap_or(usage.opened_at);
        ListedSocket {
            id,
            endpoints: usage.endpoints,
            tcp_state: usage.tcp_state,
            unread_bytes: 0,
            bytes_sent: known.map_or(usage.bytes_sent, |known| known.bytes_sent),
            bytes_received: known.map_or(usage.bytes_received, |known| known.bytes_received),
            last_send: used(usage.last_send),
            last_receive: used(usage.last_receive),
            held_by: known
                .map_or_else(|| vec![usage.opener.process], |known| known.held_by.clone()),
        }
    }

    /// Says what cannot be seen, once.
    fn warn_of_gaps(&mut self, inventory: &Inventory) {
        let first = |said: &mut bool| !std::mem::replace(said, true);
        if let Some(reason) = &inventory.unread_reason
            && first(&mut self.warned.namespaces)
        {
            log::warn!("{reason}; connections there are followed only once they are used");
        }
        let unread = inventory.unread_processes;
        if unread > 0 && first(&mut self.warned.holders) {
            log::warn!(
                "the file descriptors of {unread} processes cannot be read, so it is not known which \
                 connections they hold; CAP_SYS_PTRACE allows it"
            );
        }
        let untraced = self.tracer.counters().table_full;
        if untraced > 0 && first(&mut self.warned.table_full) {
            log::warn!(
                "{untraced} connections are not traced because the kernel's table is full; raise \
                 --max-connections"
            );
        }
    }

    /// Leaves out sockets that only processes of other names hold.
    fn keep_wanted(&mut self, sockets: &mut Vec<ListedSocket>) {
        for socket in sockets.iter() {
            for &holder in &socket.held_by {
                self.meet(holder, None);
            }
        }
        let (table, targets) = (&self.table, &mut self.targets);
        sockets.retain(|socket| {
            table.get(socket.id).is_some()
                || socket.held_by.iter().any(|&holder| targets.wants(holder, ""))
        });
    }

    /// Has the latest request's stack resolved for each connection that is on its way to being
    /// called silent.
    fn resolve_last_uses(&mut self) {
        let now = clock::now();
        let wanting: Vec<_> =
            self.table.wanting_stack(self.thresholds.silent_after / 2, now).collect();
        for (id, request) in wanting {
            let role = StackRole::LastUsedBy { request };
            let at =
                self.table.get(id).and_then(|connection| connection.opened_at).unwrap_or_default();
            let record = self.slots.get(&id).and_then(|&slot| self.tracer.recorded_stack(slot));
            let stack = record
                .filter(|(header, _)| header.cookie == id.0 && header.request == request)
                .and_then(|(header, bytes)| decode::raw_stack(&header, &bytes));
            match stack {
                Some(stack) => self.resolver.resolve(id, role, at, stack),
                // It was not recorded, and an older one would accuse an innocent.
                None => self
                    .table
                    .apply(&Event::StackResolved { id, role, stack: None, goroutine: None }, now),
            }
        }
    }

    /// Lets go of processes that are gone and have no connection any more, and of stacks that nothing
    /// refers to.
    fn forget_the_gone(&mut self) {
        let mut processes = HashSet::new();
        let mut stacks = HashSet::new();
        for connection in self.table.connections() {
            processes.insert(connection.process);
            processes.extend(&connection.held_by);
            stacks.extend(connection.opened_by.iter().chain(&connection.last_used_by));
        }
        let mut reported = HashSet::new();
        for finding in self.ledger.open().into_iter().chain(self.ledger.retracted()) {
            reported.insert(finding.verdict.process);
            stacks.extend(&finding.verdict.stack);
        }
        self.stacks.retain(|id, _| stacks.contains(id));
        self.departed.retain(|process| self.processes.contains_key(process));
        for &process in self.processes.keys() {
            if !processes.contains(&process)
                && !process::is_running(process)
                && self.departed.insert(process)
            {
                self.resolver.forget(process);
                self.tracer.forget_process(process.pid);
            }
        }
        // What is reported keeps its description.
        let (table, departed) = (&self.table, &self.departed);
        self.processes.retain(|process, _| {
            !departed.contains(process)
                || reported.contains(process)
                || table.process(*process).is_some()
        });
        self.targets.prune();
    }

    /// What the resolver has found out next.
    pub(super) async fn answer(&mut self) -> Option<Answer> {
        self.resolver.answer().await
    }

    /// Takes in what the resolver has found out: a stack, and how to copy its process's stacks.
    pub(super) fn take_answer(&mut self, answer: Option<Answer>) -> anyhow::Result<()> {
        let Some(Answer { process, profile, stack }) = answer else {
            anyhow::bail!("the resolver's thread has died");
        };
        if let Some(profile) = profile {
            self.tracer.set_profile(process.pid, profile);
        }
        let Some(ResolvedStack { id, role, at, wanted, resolved }) = stack else {
            return Ok(());
        };
        let opened_at = self.table.get(id).and_then(|connection| connection.opened_at);
        if opened_at.is_some_and(|opened_at| opened_at != at) {
            // The socket has begun another connection meanwhile.
            return Ok(());
        }
        if resolved.frames_wanted_more {
            self.tracer.set_stack_bytes(process.pid, wanted.saturating_mul(STACK_GROWTH));
        }
        let stack = resolved.stack.map(|stack| {
            let id = stack.id.clone();
            self.stacks.insert(id.clone(), stack);
            id
        });
        let event = Event::StackResolved { id, role, stack, goroutine: resolved.goroutine };
        self.table.apply(&event, clock::now());
        Ok(())
    }

    /// Whether every stack asked for has been answered.
    pub(super) fn stacks_are_resolved(&self) -> bool {
        self.resolver.is_idle()
    }

    /// Judges the table and prints what has changed.
    pub(super) fn judge(&mut self) -> anyhow::Result<()> {
        let now = clock::now();
        let mut changes = self.keep_what_exited_leaked();
        changes.extend(self.update_ledger(now));
        let snapshot = snapshot!(self, now, ended: false);
        Ok(self.output.interval(&snapshot, &changes)?)
    }

    /// Judges for the last time and prints the report.
    pub(super) fn report(mut self) -> anyhow::Result<Ended> {
        let now = clock::now();
        let mut changes = self.keep_what_exited_leaked();
        changes.extend(self.update_ledger(now));
        let snapshot = snapshot!(self, now, ended: true);
        self.output.report(&snapshot, &changes)?;
        Ok(Ended { leak: self.ledger.has_leak() })
    }

    fn event_counts(&self) -> EventCounts {
        let counters = self.tracer.counters();
        let lost: u64 = counters.lost.iter().sum();
        EventCounts {
            received: self.events.received,
            // A connection without a slot loses all its events.
            lost: lost + self.events.undecodable + counters.table_full,
            stacks_skipped: counters.stacks_over_budget
                + counters.stacks_no_slot
                + counters.stacks_unreadable
                + self.resolver.refused(),
        }
    }

    /// What a process had leaked when it exited stays found: often it exits because of that.
    fn keep_what_exited_leaked(&mut self) -> Vec<Change> {
        let accused: HashSet<_> =
            self.ledger.open().into_iter().map(|finding| finding.verdict.process).collect();
        let exited = accused.into_iter().filter(|&process| {
            let is_held = |connection: &table::Connection| {
                connection.process == process && !connection.held_by.is_empty()
            };
            // A child may live on with the connections of its parent.
            !process::is_running(process) && !self.table.connections().any(is_held)
        });
        exited.collect::<Vec<_>>().into_iter().flat_map(|p| self.ledger.process_exited(p)).collect()
    }

    fn update_ledger(&mut self, now: Timestamp) -> Vec<Change> {
        let standing = self.ledger.standing();
        let verdicts = detect::evaluate(&self.table, &self.thresholds, &standing, now);
        self.ledger.update(verdicts, &self.table, now)
    }
}

/// What stays the same for the whole run.
fn run_info(args: &TraceArgs, tracer: &Tracer) -> RunInfo {
    let system = rustix::system::uname();
    RunInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host: system.nodename().to_string_lossy().into_owned(),
        kernel: system.release().to_string_lossy().into_owned(),
        hooks: tracer.hooks(),
        ports: args.port.clone(),
        started_at: SystemTime::now(),
    }
}
