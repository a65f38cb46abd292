//! What the event loop works on: events go into the table, the table is judged, judgements are
//! printed.

mod housekeeping;
mod inventory;
mod judgement;
mod stacks;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context as _;

use super::output::Output;
use super::resolver::ResolverThread;
use super::targets::Targets;
use crate::cli::TraceArgs;
use crate::detect::Thresholds;
use crate::event::{ConnectionId, Event, ProcessKey, StackId, StackRole};
use crate::findings::Ledger;
use crate::kernel::Tracer;
use crate::process::{self, ProcessInfo};
use crate::report::{Clock, RunInfo};
use crate::stacks::{Stack, StackCounts};
use crate::table::ConnectionTable;
use crate::{clock, decode};

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
    /// How the stacks that were wanted came out.
    stack_counts: StackCounts,
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
            stack_counts: StackCounts::default(),
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
                        self.resolve(*id, StackRole::OpenedBy, *at, stack);
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
        if comm.is_some() {
            // It has just connected, and may be about to exit: this before all else.
            self.resolver.first_sight(process);
        }
        let info = process::describe(process).or_else(|error| {
            log::debug!("process {}: {error}", process.pid);
            comm.map(|comm| ProcessInfo::gone(process, comm)).ok_or(error)
        });
        if let Ok(info) = info {
            self.processes.insert(process, info);
            if comm.is_none() {
                self.resolver.first_sight(process);
            }
        }
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
