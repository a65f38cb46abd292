//! The event loop: kernel events, resolved stacks, inventories and the clock come in; everything is
//! judged once an interval.

mod collector;
pub mod memory;
mod outlets;
mod resolver;
mod targets;
mod worker;

use std::future::pending;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, bail};
use aya_log::EbpfLogger;
use leak_common::event::LINGER_NS;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep_until};

use crate::cli::TraceArgs;
use crate::sources::inventory::{Inventory, InventoryError};
use crate::sources::kernel::{Tracer, TracerSettings, check_pid_namespace};
use crate::sources::kubernetes::Pods;
use crate::sources::postgres::SessionPoller;
use collector::{BATCH, Collector};
use outlets::Outlets;
use targets::Targets;

/// How often it is looked whether the traced processes still live.
const LIVENESS: Duration = Duration::from_millis(500);
/// How long after events it is looked for more: the kernel programs wake us only after a pause.
const LINGER: Duration = Duration::from_nanos(LINGER_NS);
/// How long a judgement waits for stacks that are still being resolved.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same for the last judgement: the report is what people keep.
const LAST_PATIENCE: Duration = Duration::from_secs(10);

/// How a trace ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Whether a finding of severity `leak` was open at the end.
    pub leak: bool,
}

/// What the command line asks of the kernel programs.
#[must_use]
pub fn settings(args: &TraceArgs, verbose: u8) -> TracerSettings {
    let resources = &args.resources;
    TracerSettings {
        ports: args.port.clone(),
        pids: (!args.pid.is_empty()).then(|| args.pid.clone()),
        children: args.children,
        ring_bytes: resources.ring_size << 20,
        max_connections: resources.max_connections,
        uses: args.uses,
        max_records: resources.stack_slots.min(resources.max_connections),
        stack_bytes: 8 << 10,
        stack_budget_ns: u64::try_from(resources.stack_budget.as_nanos()).unwrap_or(u64::MAX),
        drop_one_in: resources.drop_one_in,
        flavour: resources.hooks,
        debug_log: verbose > 1,
    }
}

/// Traces until told to stop, and prints what is found to stdout.
///
/// # Errors
///
/// When the kernel programs cannot run here, a process to trace does not exist, or the report cannot
/// be written.
pub async fn trace(args: &TraceArgs, verbose: u8) -> anyhow::Result<Ended> {
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be caught")?;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be caught")?;
    raise_file_limit();
    check_pid_namespace()?;
    if args.shows_password {
        log::warn!(
            "everyone can see the password of --pg-dsn in `ps`; put it into ~/.pgpass, a passfile, or \
             the variable PGSOCKTRACE_PG_DSN"
        );
    }
    let mut targets = Targets::find(args)?;
    let outlets = Outlets::open(args)?;
    let mut tracer =
        Tracer::start(&TracerSettings { pids: targets.pids(), ..settings(args, verbose) })?;
    tracer.require_main_job()?;
    // What was forked while the hooks were being attached.
    for child in targets.late_children() {
        tracer.add_pid(child);
    }
    let mut debug_log = DebugLog::start(&mut tracer, verbose)?;
    let ring = watch(tracer.ring_fd())?;
    let mut pods = Pods::start(&args.kubernetes).context("Kubernetes cannot be asked")?;
    let mut collector = Collector::new(args, tracer, targets, pods.clone(), outlets)?;
    let mut servers =
        SessionPoller::start(&args.pg_dsn.concat()).context("the servers cannot be asked")?;
    servers.ask();
    collector.take_first_inventory().await?;
    // What is learnt of the processes at first sight makes their first stacks better.
    settle(&mut collector, PATIENCE).await?;
    log::info!("tracing {}; Ctrl-C ends it with a report", collector.subject());

    let mut tick = interval_at(Instant::now() + args.interval, args.interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut liveness = interval(LIVENESS);
    liveness.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = args.duration.map(|duration| Instant::now() + duration);
    let mut taking: Option<JoinHandle<Result<Inventory, InventoryError>>> = None;
    let mut judge_by = Some(Instant::now() + PATIENCE.min(args.interval));
    let mut look_again: Option<Instant> = None;

    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            () = at(end) => break,
            _ = liveness.tick() => {
                collector.keep_recording();
                collector.show_life();
                collector.sample_cost();
                collector.replace_stuck();
                if !collector.anyone_left() {
                    log::info!("all traced processes have exited");
                    break;
                }
            }
            ready = ring.readable() => {
                if collector.drain(BATCH)? < BATCH {
                    ready?.clear_ready();
                }
                // Also when an inventory has taken in what we were woken for.
                look_again = Some(Instant::now() + LINGER);
            }
            () = at(look_again) => {
                look_again = match collector.drain(BATCH)? {
                    0 => None,
                    BATCH => Some(Instant::now()),
                    _ => Some(Instant::now() + LINGER),
                };
            }
            flushed = flush(&mut debug_log) => flushed?,
            answer = collector.answer() => collector.take_answer(answer)?,
            told = servers.answer() => collector.take_server_answer(told)?,
            () = pods.changed() => collector.name_pods()?,
            _ = tick.tick(), if taking.is_none() => {
                servers.ask();
                taking = Some(collector.start_inventory()?);
            }
            inventory = finished(&mut taking) => {
                taking = None;
                collector.take_inventory(inventory?)?;
                judge_by = Some(Instant::now() + PATIENCE.min(args.interval));
            }
            () = at(judge_by) => {
                judge_by = None;
                collector.judge()?;
            }
        }
        if judge_by.is_some() && collector.stacks_are_resolved() {
            judge_by = None;
            collector.judge()?;
        }
    }
    tokio::select! {
        ended = finish(collector, taking, servers) => ended,
        _ = interrupt.recv() => bail!("interrupted a second time, so there is no report"),
    }
}

/// Allows as many open files as it may have: binaries are kept open so that processes which exit still
/// resolve.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        log::debug!("the limit on open files stays as it is: {error}");
    }
}

/// Takes a last look at everything, judges, and reports.
async fn finish(
    mut collector: Collector,
    taking: Option<JoinHandle<Result<Inventory, InventoryError>>>,
    mut servers: SessionPoller,
) -> anyhow::Result<Ended> {
    servers.ask();
    if let Some(taking) = taking {
        // It looked too early for the last judgement, but it may hold what the kernel is about to
        // forget.
        collector.take_inventory(taking.await?)?;
    }
    collector.drain_all()?;
    let last = collector.start_inventory()?.await?;
    collector.take_inventory(last)?;
    collector.settle_servers(&mut servers).await?;
    collector.take_uses()?;
    settle(&mut collector, LAST_PATIENCE).await?;
    collector.report()
}

/// Lets the resolver answer everything that it was asked, but for no longer than `patience`.
async fn settle(collector: &mut Collector, patience: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    while !collector.stacks_are_resolved() {
        tokio::select! {
            answer = collector.answer() => collector.take_answer(answer)?,
            () = sleep_until(deadline) => break,
        }
    }
    Ok(())
}

/// The readiness of a file, apart from whoever reads it.
fn watch(fd: BorrowedFd<'_>) -> anyhow::Result<AsyncFd<OwnedFd>> {
    let fd = fd.try_clone_to_owned().context("a file descriptor cannot be duplicated")?;
    // SAFETY: the descriptor is owned by what watches it, so it stays the same and open.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// The kernel programs' own log.
struct DebugLog {
    readiness: AsyncFd<OwnedFd>,
    logger: EbpfLogger<&'static dyn log::Log>,
}

impl DebugLog {
    fn start(tracer: &mut Tracer, verbose: u8) -> anyhow::Result<Option<Self>> {
        if verbose < 2 {
            return Ok(None);
        }
        let Some(logger) = tracer.debug_log() else { return Ok(None) };
        Ok(Some(Self { readiness: watch(logger.as_fd())?, logger }))
    }

    /// Waits for entries and passes them on.
    async fn flush(&mut self) -> std::io::Result<()> {
        let mut ready = self.readiness.readable().await?;
        self.logger.flush();
        ready.clear_ready();
        Ok(())
    }
}

/// Waits for the kernel programs' log; for ever when it is not read.
async fn flush(debug_log: &mut Option<DebugLog>) -> std::io::Result<()> {
    match debug_log {
        Some(debug_log) => debug_log.flush().await,
        None => pending().await,
    }
}

/// Waits until `when`; for ever when there is no such moment.
async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => pending().await,
    }
}

/// Waits for the inventory under way; for ever when none is.
async fn finished(
    taking: &mut Option<JoinHandle<Result<Inventory, InventoryError>>>,
) -> Result<Result<Inventory, InventoryError>, tokio::task::JoinError> {
    match taking {
        Some(taking) => taking.await,
        None => pending().await,
    }
}

/// An error and its causes as one sentence, each said once.
#[must_use]
pub fn sentence(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.contains(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text
}
