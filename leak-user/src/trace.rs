//! A live trace: the only room that knows both the sources and the outputs.
//!
//! `schedule` says what the event loop does next, and `collector` hands it from part to part:
//! `intake` decodes what the kernel programs write, `enrichment` describes processes, and
//! `stack_requests` has stacks resolved. What they make are facts, and `session` is the one door
//! through which facts reach the engine. What goes back goes through `feedback`.

mod collector;
mod command;
mod enrichment;
mod error;
mod feedback;
mod health;
mod intake;
mod inventory;
mod look;
mod looks;
mod pools;
mod resolver;
pub mod resources;
mod schedule;
mod senders;
mod servers;
mod session;
mod settings;
mod stack_requests;
mod targets;
mod worker;

use std::time::{Duration, SystemTime};

pub use command::{CommandError, CommandLine};
pub use error::TraceError;
pub use session::{Ended, Session};
pub use settings::TraceSettings;

use sd_notify::NotifyState;

use crate::clock;
use crate::engine::Beginning;
use crate::engine::snapshot::RunInfo;
use crate::model::Fact;
use crate::model::time::Clock;
use crate::outputs::{OutputError, Printing, Sinks, read_learnt};
use crate::sources::kernel::{Tracer, TracerSettings, check_pid_namespace};
use crate::sources::kubernetes::Pods;
use crate::sources::postgres;
use collector::Collector;
use command::HeldCommand;
use enrichment::Enrichment;
use health::HealthMeter;
use intake::Intake;
use inventory::Inventories;
use looks::Looks;
use pools::Pools;
use schedule::{DebugLog, Readiness, Schedule, Signals, Turn};
use stack_requests::StackRequests;
use targets::Targets;

/// How long the first stacks wait for what the first look at processes shows.
const FIRST_PATIENCE: Duration = Duration::from_secs(2);
/// How long the last judgement waits for stacks: the report is what people keep.
const LAST_PATIENCE: Duration = Duration::from_secs(10);

/// Traces until told to stop, and shows what is found. With a command it traces that, from its
/// first connection on and until it ends. To be called before any thread is started.
///
/// # Errors
///
/// When the kernel programs cannot run here, a process to trace does not exist, the command cannot
/// be executed, or an output cannot be written.
pub async fn trace(settings: &TraceSettings) -> Result<Ended, TraceError> {
    let held = settings.command.as_ref().map(HeldCommand::new).transpose()?;
    let settings = &settings.of_command(held.as_ref().map(HeldCommand::pid));
    let signals = Signals::catch()?;
    resources::raise_file_limit();
    check_pid_namespace()?;
    let mut targets = Targets::find(settings)?;
    let known = settings.outputs.learn.as_deref().map(read_learnt).transpose();
    let known = known.map_err(OutputError::other)?.unwrap_or_default();
    let sinks = Sinks::open(&settings.outputs, Printing::Apart)?;
    let kernel = TracerSettings { pids: targets.pids(), ..settings.kernel.clone() };
    let mut tracer = Tracer::start(&kernel)?;
    tracer.require_main_job()?;
    // What was forked while the hooks were being attached.
    for child in targets.late_children() {
        tracer.add_pid(child);
    }
    let log_started = kernel.debug_log.then(|| DebugLog::start(&mut tracer)).transpose()?;
    let ring = Readiness::of_ring(&tracer)?;
    let mut pods = Pods::start(&settings.kubernetes)
        .map_err(TraceError::system("Kubernetes cannot be queried"))?;
    let stacks = StackRequests::start(&settings.driver_frames, kernel.uses)
        .map_err(TraceError::system("the resolver's threads cannot be started"))?;
    let mut servers = postgres::SessionPoller::start(&settings.servers)
        .map_err(TraceError::system("the servers cannot be queried"))?;
    servers.ask();
    let ports: Vec<_> = kernel.ports.iter().map(u16::to_string).collect();
    let subject = format!("{}, server port {}", targets.describe(), ports.join(", "));
    let mut collector = Collector {
        session: Session::begin(beginning(settings, &tracer), sinks)?,
        tracer,
        targets,
        intake: Intake::default(),
        stacks,
        looks: Looks::new(settings.waiting),
        enrichment: Enrichment::new(pods.clone()),
        inventories: Inventories::new(kernel.ports.clone()),
        pools: Pools::default(),
        health: HealthMeter::start(),
    };
    collector.session.suppress(&settings.suppress);
    for learnt in known {
        collector.session.tell(clock::now(), &Fact::Learnt(learnt))?;
    }
    collector.begin(held.is_none()).await?;
    collector.settle_stacks(FIRST_PATIENCE).await?;
    if held.is_none() {
        log::info!("tracing {subject}; Ctrl-C ends it with a report");
        collector.targets.warn_of_absent_names();
        collector.tell_elsewhere(kernel.ports.clone()).await;
    }
    tell_service_manager(NotifyState::Ready);
    let command = match held {
        Some(held) => Some(held.release().await?),
        None => None,
    };

    let every = settings.thresholds.interval;
    let debug_log = log_started.flatten();
    let mut schedule = Schedule::begin(signals, ring, debug_log, every, settings.duration);
    schedule.end_with(command);
    let mut status = None;
    loop {
        match schedule.next(&mut collector.stacks, &mut servers, &mut pods).await? {
            Turn::End => break,
            Turn::CommandEnded(ended) => {
                status = Some(ended);
                break;
            }
            Turn::Liveness => {
                // A command has ended only once its status is there.
                if !collector.look_alive() && settings.command.is_none() {
                    log::info!("all traced processes have exited");
                    break;
                }
            }
            Turn::Events => schedule.events_taken(collector.take_events()?),
            Turn::Stack(answer) => collector.take_stack(answer)?,
            Turn::Sessions(answer) => collector.take_sessions(answer)?,
            Turn::Names => collector.take_names()?,
            Turn::StartInventory => {
                servers.ask();
                schedule.inventory_started(collector.start_inventory());
            }
            Turn::Inventory(inventory) => {
                collector.take_inventory(inventory)?;
                schedule.judge_soon();
            }
            Turn::Judge => collector.judge()?,
        }
    }
    tell_service_manager(NotifyState::Stopping);
    let taking = schedule.abandon_inventory();
    tokio::select! {
        ended = collector.finish(taking, servers, LAST_PATIENCE) => Ok(Ended { status, ..ended? }),
        () = schedule.interrupted() => Err(TraceError::Interrupted),
    }
}

/// Tells the service manager, if one asked for it: that is systemd's protocol.
fn tell_service_manager(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        log::warn!("the service manager cannot be told how far the trace is: {error}");
    }
}

/// What stays the same for the whole run.
fn beginning(settings: &TraceSettings, tracer: &Tracer) -> Beginning {
    let system = rustix::system::uname();
    let started_at = SystemTime::now();
    let run = RunInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host: system.nodename().to_string_lossy().into_owned(),
        kernel: system.release().to_string_lossy().into_owned(),
        hooks: tracer.hooks(),
        ports: settings.kernel.ports.clone(),
        started_at,
    };
    let capacity = usize::try_from(settings.kernel.max_connections).unwrap_or(usize::MAX);
    let clock = Clock::new(clock::now(), started_at);
    Beginning { run, clock, thresholds: settings.thresholds, capacity }
}
