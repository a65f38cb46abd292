//! What the event loop does next.

use std::future::pending;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::process::ExitStatus;
use std::time::Duration;

use aya_log::EbpfLogger;
use leak_common::event::LINGER_NS;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, interval_at, sleep_until};

use crate::sources::inventory::{Inventory, InventoryError};
use crate::sources::kernel::Tracer;
use crate::sources::kubernetes::Pods;
use crate::sources::postgres;
use crate::trace::TraceError;
use crate::trace::collector::BATCH;
use crate::trace::command::RunningCommand;
use crate::trace::inventory::Taking;
use crate::trace::resolver;
use crate::trace::stack_requests::StackRequests;

/// Interval between liveness checks.
const LIVENESS: Duration = Duration::from_millis(500);
/// How long after events more are looked for: the kernel programs wake us only after a pause.
const LINGER: Duration = Duration::from_nanos(LINGER_NS);
/// When what exists is first listed anew, unless intervals are shorter: whoever has just begun to
/// look wants to see something.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// How long a judgement waits for stacks that are still being resolved.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the event loop does next.
pub(super) enum Turn {
    /// End the trace.
    End,
    /// End the trace: the command has ended, with this status.
    CommandEnded(ExitStatus),
    /// Check whether everything still lives.
    Liveness,
    /// Take events out of the ring buffer, and say how many there were: [`Schedule::events_taken`].
    Events,
    /// Take what the resolver has found out; `None` when its threads have died.
    Stack(Option<resolver::Answer>),
    /// Take a PostgreSQL server's answer.
    Sessions(postgres::PollAnswer),
    /// Take what Kubernetes has changed.
    Names,
    /// Begin to list what exists: [`Schedule::inventory_started`].
    StartInventory,
    /// Take the list of what exists, and judge soon: [`Schedule::judge_soon`].
    Inventory(Result<Inventory, InventoryError>),
    /// Judge.
    Judge,
}

/// Everything that the event loop waits for, except who answers requests.
pub(super) struct Schedule {
    signals: Signals,
    ring: Readiness,
    debug_log: Option<DebugLog>,
    tick: Interval,
    liveness: Interval,
    end: Option<Instant>,
    /// With it the trace ends.
    command: Option<RunningCommand>,
    /// How long a judgement waits.
    patience: Duration,
    /// An inventory under way.
    taking: Option<Taking>,
    judge_by: Option<Instant>,
    /// When the ring buffer is looked at even if nothing wakes us.
    look_again: Option<Instant>,
    /// The kernel programs woke us.
    woken: bool,
    begun: bool,
}

/// Signals that end a trace, caught from now on. When a terminal or a session goes away, that ends
/// it with a report, too.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    pub(super) fn catch() -> Result<Self, TraceError> {
        let catch = |kind, what| signal(kind).map_err(TraceError::system(what));
        Ok(Self {
            interrupt: catch(SignalKind::interrupt(), "SIGINT cannot be caught")?,
            terminate: catch(SignalKind::terminate(), "SIGTERM cannot be caught")?,
            hang_up: catch(SignalKind::hangup(), "SIGHUP cannot be caught")?,
        })
    }

    /// Waits for the next one.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

impl Schedule {
    /// Begins now: judges soon, after two seconds, and then after each `interval`, until a signal
    /// comes or `duration` is over. With `debug_log` the kernel programs' log is passed on.
    pub(super) fn begin(
        signals: Signals,
        ring: Readiness,
        debug_log: Option<DebugLog>,
        every: Duration,
        duration: Option<Duration>,
    ) -> Self {
        let now = Instant::now();
        let mut tick = interval_at(now + FIRST_LOOK.min(every), every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut liveness = interval(LIVENESS);
        liveness.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let patience = PATIENCE.min(every);
        Self {
            signals,
            ring,
            debug_log,
            tick,
            liveness,
            end: duration.map(|duration| now + duration),
            command: None,
            patience,
            taking: None,
            judge_by: Some(now + patience),
            look_again: None,
            woken: false,
            begun: false,
        }
    }

    /// Ends with this command, if there is one.
    pub(super) fn end_with(&mut self, command: Option<RunningCommand>) {
        self.command = command;
    }

    /// Waits for what is to be done next.
    pub(super) async fn next(
        &mut self,
        stacks: &mut StackRequests,
        servers: &mut postgres::SessionPoller,
        pods: &mut Pods,
    ) -> Result<Turn, TraceError> {
        let begun = std::mem::replace(&mut self.begun, true);
        if begun && self.judge_by.is_some() && stacks.are_answered() {
            self.judge_by = None;
            return Ok(Turn::Judge);
        }
        loop {
            let turn = tokio::select! {
                () = self.signals.next() => Turn::End,
                () = at(self.end) => Turn::End,
                status = ended(&mut self.command) => {
                    let status = status.map_err(TraceError::system(
                        "the command cannot be waited for",
                    ))?;
                    Turn::CommandEnded(status)
                }
                _ = self.liveness.tick() => Turn::Liveness,
                ready = self.ring.wait() => {
                    ready.map_err(TraceError::system("the ring buffer cannot be waited for"))?;
                    self.woken = true;
                    Turn::Events
                }
                () = at(self.look_again) => Turn::Events,
                flushed = flush(&mut self.debug_log) => {
                    flushed.map_err(TraceError::system("the kernel programs' log cannot be read"))?;
                    continue;
                }
                answer = stacks.answer() => Turn::Stack(answer),
                answer = servers.answer() => Turn::Sessions(answer),
                () = pods.changed() => Turn::Names,
                _ = self.tick.tick(), if self.taking.is_none() => Turn::StartInventory,
                inventory = finished(&mut self.taking) => {
                    self.taking = None;
                    Turn::Inventory(inventory?)
                }
                () = at(self.judge_by) => {
                    self.judge_by = None;
                    Turn::Judge
                }
            };
            return Ok(turn);
        }
    }

    /// So many events were taken, at most a [`BATCH`].
    pub(super) fn events_taken(&mut self, count: usize) {
        let woken = std::mem::take(&mut self.woken);
        self.look_again = match count {
            BATCH => Some(Instant::now()),
            // Also when an inventory has taken what we were woken for.
            0 if !woken => None,
            _ => Some(Instant::now() + LINGER),
        };
    }

    /// An inventory is under way.
    pub(super) fn inventory_started(&mut self, taking: Taking) {
        self.taking = Some(taking);
    }

    /// Judges as soon as no stack is being resolved, or after a while. A judgement that waits
    /// already is not put off: with a stuck resolver, inventories would put it off for ever.
    pub(super) fn judge_soon(&mut self) {
        self.judge_by.get_or_insert(Instant::now() + self.patience);
    }

    /// The inventory under way, if there is one. From now on an interrupt is for the tracer.
    pub(super) fn abandon_inventory(&mut self) -> Option<Taking> {
        if let Some(command) = &self.command {
            command.stop_passing_signals();
        }
        self.taking.take()
    }

    /// Waits for one more signal to end.
    pub(super) async fn interrupted(&mut self) {
        self.signals.next().await;
    }
}

/// The readiness of a file, apart from whoever reads it.
pub(super) struct Readiness(AsyncFd<OwnedFd>);

impl Readiness {
    /// Watches the ring buffer.
    pub(super) fn of_ring(tracer: &Tracer) -> Result<Self, TraceError> {
        Self::of(tracer.ring_fd())
    }

    fn of(fd: BorrowedFd<'_>) -> Result<Self, TraceError> {
        const WHAT: &str = "a file of the kernel programs cannot be watched";
        let fd = fd.try_clone_to_owned().map_err(TraceError::system(WHAT))?;
        // SAFETY: the descriptor is owned by what watches it, so it stays the same and open.
        let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        Ok(Self(watched.map_err(|error| TraceError::system(WHAT)(error.into()))?))
    }

    /// Waits until there is something to read. What comes from then on makes it ready once more.
    async fn wait(&self) -> std::io::Result<()> {
        self.0.readable().await?.clear_ready();
        Ok(())
    }
}

/// The kernel programs' own log.
pub(super) struct DebugLog {
    readiness: Readiness,
    logger: EbpfLogger<&'static dyn log::Log>,
}

impl DebugLog {
    /// Reads the log, if it was compiled in.
    pub(super) fn start(tracer: &mut Tracer) -> Result<Option<Self>, TraceError> {
        let Some(logger) = tracer.debug_log() else { return Ok(None) };
        Ok(Some(Self { readiness: Readiness::of(logger.as_fd())?, logger }))
    }
}

/// Waits for the kernel programs' log and passes it on; waits for ever when it is not read.
async fn flush(debug_log: &mut Option<DebugLog>) -> std::io::Result<()> {
    let Some(DebugLog { readiness, logger }) = debug_log else { return pending().await };
    readiness.wait().await?;
    logger.flush();
    Ok(())
}

/// Waits until `when`; for ever when there is no such moment.
async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => pending().await,
    }
}

/// Waits for the end of the command; for ever when there is none.
async fn ended(command: &mut Option<RunningCommand>) -> std::io::Result<ExitStatus> {
    match command {
        Some(command) => command.ended().await,
        None => pending().await,
    }
}

/// Waits for the inventory under way; for ever when none is.
async fn finished(
    taking: &mut Option<Taking>,
) -> Result<Result<Inventory, InventoryError>, tokio::task::JoinError> {
    match taking {
        Some(taking) => taking.await,
        None => pending().await,
    }
}
