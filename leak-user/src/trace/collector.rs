//! What the event loop works on: it asks the kernel and procfs, and tells the engine what they say.

mod housekeeping;
mod inventory;
mod judgement;
mod pods;
mod server_join;
mod stacks;

use std::collections::HashSet;
use std::io;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;

use crate::cli::TraceArgs;
use crate::clock;
use crate::engine::detect::Thresholds;
use crate::engine::snapshot::RunInfo;
use crate::engine::{Beginning, Engine, Fact};
use crate::model::clock::Clock;
use crate::model::process::ProcessInfo;
use crate::model::{Event, ProcessKey, StackRole, Timestamp};
use crate::outputs::recording::Recorder;
use crate::outputs::writer::Output;
use crate::sources::kernel::Tracer;
use crate::sources::kernel::decode;
use crate::sources::kubernetes::Pods;
use crate::sources::procfs;
use crate::trace::outlets::Outlets;
use crate::trace::resolver::ResolverThread;
use crate::trace::targets::Targets;
use leak_stacks::StackCounts;

/// Events handled at a stretch, so that a storm of them never keeps the clock waiting.
pub(super) const BATCH: usize = 1024;
/// More than fit into the ring buffer of the usual size.
const MAX_BATCHES: usize = 256;

/// Everything that is needed during a trace.
pub(super) struct Collector {
    ports: Vec<u16>,
    /// How many uses of each connection are reported.
    uses: u32,
    tracer: Tracer,
    targets: Targets,
    resolver: ResolverThread,
    pods: Pods,
    engine: Engine,
    recorder: Option<Recorder>,
    outlets: Outlets,
    /// How the stacks that were wanted came out.
    stack_counts: StackCounts,
    /// Processes that the resolver has been shown.
    met: HashSet<ProcessKey>,
    events: Events,
    /// When it began.
    began: Timestamp,
    /// CPU time that was taken until then.
    cpu_before: Duration,
    /// What it was warned of already.
    warned: Warned,
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
    pub(super) fn new(
        args: &TraceArgs,
        tracer: Tracer,
        targets: Targets,
        pods: Pods,
        outlets: Outlets,
    ) -> anyhow::Result<Self> {
        let beginning = beginning(args, &tracer);
        let recorder = args.record.as_deref().map(|path| {
            Recorder::create(path, &beginning)
                .with_context(|| format!("{} cannot be written", path.display()))
        });
        let mut collector = Self {
            ports: args.port.clone(),
            uses: args.uses,
            tracer,
            targets,
            resolver: ResolverThread::start(&args.driver_frames)
                .context("the resolver's threads cannot be started")?,
            pods,
            engine: Engine::new(beginning, Output::to_stdout(args.output)),
            recorder: recorder.transpose()?,
            outlets,
            stack_counts: StackCounts::default(),
            met: HashSet::new(),
            events: Events::default(),
            began: clock::now(),
            cpu_before: clock::cpu_time(),
            warned: Warned::default(),
        };
        for process in collector.targets.roots().to_vec() {
            collector.meet(process, None)?;
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

    /// Has what was recorded written, if it has waited for long enough.
    pub(super) fn keep_recording(&mut self) {
        if let Some(recorder) = &mut self.recorder {
            recorder.flush_if_due(clock::now());
        }
    }

    /// Shows whoever asks for the metrics that the event loop turns.
    pub(super) fn show_life(&self) {
        self.outlets.turned(clock::now());
    }

    /// Measures what the kernel programs cost, if it is time to.
    pub(super) fn sample_cost(&mut self) {
        self.tracer.sample_cost(clock::now());
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
                Ok(decoded) => self.take_decoded(decoded)?,
                Err(error) => {
                    self.events.undecodable += 1;
                    log::warn!("{error}; it is left out");
                }
            }
        }
        self.engine.flush()?;
        Ok(count)
    }

    fn take_decoded(&mut self, decoded: decode::Decoded) -> io::Result<()> {
        let decode::Decoded { event, stack } = decoded;
        if !self.is_wanted(&event) {
            return Ok(());
        }
        if let Event::Opened { id, at, caller, .. } = &event {
            self.meet(caller.process, Some(&caller.comm))?;
            if let Some(stack) = stack {
                self.resolve(*id, StackRole::OpenedBy, *at, stack);
            }
        }
        self.tell(&Fact::Event(event))
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
                self.engine.table().get(*id).is_some()
            }
            Event::Unchanged { .. }
            | Event::Inventory { .. }
            | Event::Uses { .. }
            | Event::StackResolved { .. }
            | Event::ServerSessions { .. }
            | Event::UserGone { .. } => true,
        }
    }

    /// Tells the engine what has just become known.
    fn tell(&mut self, fact: &Fact) -> io::Result<()> {
        self.tell_at(clock::now(), fact)
    }

    /// The only way to the engine, and so the place where it is recorded.
    fn tell_at(&mut self, now: Timestamp, fact: &Fact) -> io::Result<()> {
        if let Some(recorder) = &mut self.recorder {
            recorder.record(now, fact);
        }
        self.engine.take(fact, now)
    }

    /// Looks at a process when it first appears: it may be gone at the next look. `comm` is what is
    /// known of its name when it is gone already.
    fn meet(&mut self, process: ProcessKey, comm: Option<&str>) -> io::Result<()> {
        if self.engine.describes(process) {
            return Ok(());
        }
        if comm.is_some() {
            // It has just connected, and may be about to exit: this before all else.
            self.resolver.first_sight(process);
        }
        let info = procfs::describe(process).or_else(|error| {
            log::debug!("process {}: {error}", process.pid);
            comm.map(|comm| ProcessInfo::gone(process, comm)).ok_or(error)
        });
        let Ok(mut info) = info else { return Ok(()) };
        info.pod = self.pods.find(&info);
        self.met.insert(process);
        if comm.is_none() {
            self.resolver.first_sight(process);
        }
        self.tell(&Fact::Process(info))
    }
}

/// What stays the same for the whole run.
fn beginning(args: &TraceArgs, tracer: &Tracer) -> Beginning {
    let system = rustix::system::uname();
    let started_at = SystemTime::now();
    let run = RunInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host: system.nodename().to_string_lossy().into_owned(),
        kernel: system.release().to_string_lossy().into_owned(),
        hooks: tracer.hooks(),
        ports: args.port.clone(),
        started_at,
    };
    let thresholds =
        Thresholds { silent_after: args.silent_after, interval: args.interval, limit: args.limit };
    let capacity = usize::try_from(args.resources.max_connections).unwrap_or(usize::MAX);
    Beginning { run, clock: Clock::new(clock::now(), started_at), thresholds, capacity }
}
