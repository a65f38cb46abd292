//! Resolves stacks on background threads, so that a slow file never delays an event.
//!
//! Two threads form a pipeline. The first one opens a process's files when the process appears, so
//! that the stacks of a short-lived process can be resolved later, however busy the second thread
//! is. The second one unwinds and symbolizes. A thread that hangs while it reads a file is
//! replaced.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use tokio::sync::mpsc as channel;

use crate::clock;
use crate::model::{ConnectionId, ProcessKey, StackRole, Timestamp};
use crate::sources::drivers::{DriverReader, ProcessStates, WantedState};
use crate::sources::pools::{PoolReader, ProcessPools};
use crate::trace::look::LookedAt;
use crate::trace::worker::{Service, Worker};
use leak_stacks::{
    DriverFrames, MappingReader, ProcessSnapshot, RawStack, ReadWatchdog, Resolved, Resolver,
    StackProfile, TextUse, TruncationReason, WantedTexts, WantedThreads,
};

/// Maximum number of pending requests; further ones are refused and counted.
const QUEUE: usize = 4096;
/// Time limit for one request. The largest binaries on slow disks take seconds.
const LIMIT: Duration = Duration::from_secs(20);
/// CPU time that one look at a process's threads may take; what is left is seen at the next ones.
const LONGEST_LOOK: Duration = Duration::from_millis(200);
/// Maximum number of hanging threads, of both kinds; no thread is replaced beyond it.
const MAX_LEFT_BEHIND: usize = 8;

/// Identifies a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Task {
    /// Open the files of a process while it exists.
    Sight(ProcessKey),
    /// Resolve a stack. `at` tells successive connections on the same socket apart.
    Resolve { process: ProcessKey, id: ConnectionId, role: StackRole, at: Timestamp },
    /// Find texts in the program of a process.
    Texts { process: ProcessKey, number: u64 },
    /// Look at the threads of a process.
    Threads(ProcessKey),
    /// Read the pools of a process.
    Pools(ProcessKey),
    /// Ask the driver of a process for the states of sessions.
    States(ProcessKey),
    /// Drop all data of a process that has exited.
    Forget(ProcessKey),
}

impl Task {
    /// The process that the request concerns.
    pub(super) fn process(self) -> ProcessKey {
        match self {
            Self::Sight(process)
            | Self::Resolve { process, .. }
            | Self::Texts { process, .. }
            | Self::Threads(process)
            | Self::Pools(process)
            | Self::States(process)
            | Self::Forget(process) => process,
        }
    }
}

/// What a request comes with.
enum Input {
    Nothing,
    Stack(Box<RawStack>),
    Texts(Box<dyn WantedTexts>),
    Threads(WantedThreads),
    States(Vec<WantedState>),
}

/// The input of the second thread, from the first.
struct Work {
    snapshot: Option<ProcessSnapshot>,
    input: Input,
}

type Pinning = Worker<Input, Task>;
type Resolving = Worker<Work, Task>;

/// The result of a request.
pub(super) struct Answer {
    /// The request.
    pub(super) task: Task,
    /// The profile that the kernel programs need to copy this process's stacks.
    pub(super) profile: Option<StackProfile>,
    /// The resolved stack, if the request was to resolve one.
    pub(super) stack: Option<ResolvedStack>,
    /// The code that has the texts, if the request was to find some.
    pub(super) uses: Vec<TextUse>,
    /// What was seen of the threads, if the request was to look at them.
    pub(super) threads: Option<LookedAt>,
    /// The pools, if the request was to read them and they could be read.
    pub(super) pools: Option<ProcessPools>,
    /// The states of sessions, if the request was to ask a driver and there is one.
    pub(super) states: Option<ProcessStates>,
}

impl Answer {
    fn nothing(task: Task) -> Self {
        let (profile, stack, threads, pools, states) = Default::default();
        Self { task, profile, stack, uses: Vec::new(), threads, pools, states }
    }
}

/// The outcome of resolving a stack.
pub(super) struct ResolvedStack {
    /// The number of bytes that the kernel programs should have copied.
    pub(super) wanted: u32,
    /// The stack, or why there is none.
    pub(super) resolved: Resolved,
    /// The time that resolving took.
    pub(super) took: Duration,
}

/// The event loop's handle on both threads.
pub(super) struct ResolverThread {
    pinner: Pinning,
    resolver: Resolving,
    watch: Arc<ReadWatchdog>,
    answers: channel::UnboundedReceiver<Answer>,
    answering: channel::UnboundedSender<Answer>,
    pending: HashSet<Task>,
    refused: u64,
    /// No stacks are resolved for now, because too many threads hang or a thread could not be
    /// started.
    has_ended: bool,
}

impl ResolverThread {
    /// Starts the threads. They end when this is dropped.
    pub(super) fn start(driver_frames: &[DriverFrames]) -> io::Result<Self> {
        let (answering, answers) = channel::unbounded_channel();
        let watch = Arc::<ReadWatchdog>::default();
        let resolver = Worker::start("resolver", {
            let (answering, watch) = (answering.clone(), Arc::clone(&watch));
            let driver_frames = driver_frames.to_vec();
            move || resolving(&watch, &driver_frames, answering.clone())
        })?;
        let pinner = Worker::start("pinner", {
            let (work, watch) = (resolver.requests().clone(), Arc::clone(&watch));
            move || pinning(&watch, work.clone())
        })?;
        Ok(Self {
            pinner,
            resolver,
            watch,
            answers,
            answering,
            pending: HashSet::new(),
            refused: 0,
            has_ended: false,
        })
    }

    /// Opens a new process's files before the process can exit.
    pub(super) fn first_sight(&mut self, process: ProcessKey) {
        self.send(Task::Sight(process), Input::Nothing);
    }

    /// Requests a stack, unless the same request is pending. Returns false if the request was
    /// refused. `at` is the time at which the connection was opened.
    pub(super) fn resolve(
        &mut self,
        id: ConnectionId,
        role: StackRole,
        at: Timestamp,
        stack: RawStack,
    ) -> bool {
        let task = Task::Resolve { process: stack.process, id, role, at };
        self.send(task, Input::Stack(Box::new(stack)))
    }

    /// Has texts looked for in the program of a process. Returns false if that was refused.
    /// `number` tells one request from the next.
    pub(super) fn find_texts(
        &mut self,
        process: ProcessKey,
        number: u64,
        texts: Box<dyn WantedTexts>,
    ) -> bool {
        self.send(Task::Texts { process, number }, Input::Texts(texts))
    }

    /// Requests a look at the threads of a process, unless one is under way. Returns false if the
    /// request was refused.
    pub(super) fn look_at(&mut self, process: ProcessKey, threads: WantedThreads) -> bool {
        self.send(Task::Threads(process), Input::Threads(threads))
    }

    /// Requests that the pools of a process be read.
    pub(super) fn read_pools(&mut self, process: ProcessKey) {
        self.send(Task::Pools(process), Input::Nothing);
    }

    /// Requests the states of sessions from the driver of a process.
    pub(super) fn read_states(&mut self, process: ProcessKey, sessions: Vec<WantedState>) {
        self.send(Task::States(process), Input::States(sessions));
    }

    /// Drops all data of a process that has exited.
    pub(super) fn forget(&mut self, process: ProcessKey) {
        // Sending fails if the thread has ended; then there are no data to drop.
        let _ = self.pinner.requests().send((Task::Forget(process), Input::Nothing));
    }

    /// Waits for the next answer.
    pub(super) async fn answer(&mut self) -> Option<Answer> {
        loop {
            let answer = self.answers.recv().await?;
            // A thread that was given up may still send an answer; drop it.
            if self.pending.remove(&answer.task) {
                return Some(answer);
            }
        }
    }

    /// Number of stacks that are not resolved yet.
    pub(super) fn unresolved(&self) -> usize {
        self.pending.iter().filter(|task| matches!(task, Task::Resolve { .. })).count()
    }

    /// Whether every request has been answered.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// Number of requests that were refused because too many were pending.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// Replaces threads that hang in a request, and starts those for which there was no place once
    /// others have returned.
    pub(super) fn replace_stuck(&mut self) {
        self.replace_slower_than(LIMIT);
    }

    fn replace_slower_than(&mut self, limit: Duration) {
        if let Some(task) = self.pinner.give_up(limit) {
            self.watch.give_up_process(task.process());
            self.carry_on_without(task, limit);
        }
        if let Some(task) = self.resolver.give_up(limit) {
            self.watch.give_up(task.process());
            self.carry_on_without(task, limit);
        }
        if !self.pinner.is_served() || !self.resolver.is_served() {
            self.restart(Worker::restart, Worker::restart);
        }
    }

    fn carry_on_without(&self, task: Task, limit: Duration) {
        log::warn!(
            "looking at process {} takes longer than {} s: a file that it runs does not answer, so \
             stacks in files of that file system stay incomplete until it does",
            task.process().pid,
            limit.as_secs()
        );
        self.give_no_answer(task);
    }

    /// Starts the threads that are missing, unless too many hang.
    fn restart(
        &mut self,
        pinner: impl FnOnce(&Pinning) -> io::Result<()>,
        resolver: impl FnOnce(&Resolving) -> io::Result<()>,
    ) {
        let left_behind = self.pinner.left_behind() + self.resolver.left_behind();
        let restart = || {
            if left_behind >= MAX_LEFT_BEHIND {
                return Err(io::Error::other(format!("{left_behind} threads wait for files")));
            }
            if !self.pinner.is_served() {
                pinner(&self.pinner)?;
            }
            if self.resolver.is_served() { Ok(()) } else { resolver(&self.resolver) }
        };
        match (restart(), self.has_ended) {
            (Ok(()), has_ended) => {
                self.has_ended = false;
                if has_ended {
                    log::info!("stacks are resolved again");
                }
            }
            (Err(error), false) => {
                log::warn!("no more stacks are resolved for now: {error}");
                self.has_ended = true;
                self.pending.iter().for_each(|task| self.give_no_answer(*task));
            }
            (Err(_), true) => {}
        }
    }

    /// Answers a request in place of a hanging thread.
    fn give_no_answer(&self, task: Task) {
        let is_stack = matches!(task, Task::Resolve { .. });
        let none = Resolved::without_stack(TruncationReason::UnresponsiveFile);
        let stack =
            is_stack.then_some(ResolvedStack { wanted: 0, resolved: none, took: Duration::ZERO });
        // `self` holds the receiver, so sending cannot fail.
        let _ = self.answering.send(Answer { stack, ..Answer::nothing(task) });
    }

    /// Sends a request unless it is pending already. Returns false if the request was refused.
    fn send(&mut self, task: Task, input: Input) -> bool {
        if self.pending.contains(&task) {
            return true;
        }
        let taken = !self.has_ended
            && self.pending.len() < QUEUE
            && self.pinner.requests().send((task, input)).is_ok();
        if taken {
            self.pending.insert(task);
        } else {
            self.refused += 1;
        }
        taken
    }
}

/// The first thread's service: opens the files of processes.
fn pinning(watch: &Arc<ReadWatchdog>, work: Sender<(Task, Work)>) -> Service<Task, Input> {
    let (mut pinner, watch) = (MappingReader::default(), Arc::clone(watch));
    Box::new(move |task, input| {
        let snapshot = match task {
            Task::Sight(process) if !watch.has_given_up(process) => {
                let look = pinner.look(process, clock::now());
                look.map_err(|error| log::debug!("process {}: {error}", process.pid)).ok()
            }
            _ => None,
        };
        // Sending fails only at shutdown, when the second thread has ended.
        let _ = work.send((task, Work { snapshot, input }));
    })
}

/// The second thread's service: unwinds and symbolizes.
fn resolving(
    watch: &Arc<ReadWatchdog>,
    driver_frames: &[DriverFrames],
    answering: channel::UnboundedSender<Answer>,
) -> Service<Task, Work> {
    let mut resolver = Resolver::new(Arc::clone(watch));
    resolver.set_driver_frames(driver_frames.to_vec());
    let mut reader = PoolReader::default();
    let mut drivers = DriverReader::default();
    Box::new(move |task, Work { snapshot, input }| {
        let now = clock::now();
        let process = task.process();
        match task {
            Task::Sight(_) => {
                if let Some(snapshot) = snapshot
                    && let Err(error) = resolver.meet(snapshot, now)
                {
                    log::debug!("{error}");
                }
            }
            Task::Forget(_) => {
                reader.forget(process);
                drivers.forget(process);
                return resolver.forget(process);
            }
            Task::Resolve { .. }
            | Task::Texts { .. }
            | Task::Threads(_)
            | Task::Pools(_)
            | Task::States(_) => {}
        }
        let mut answer = Answer::nothing(task);
        let began = Instant::now();
        match input {
            Input::Nothing => {}
            Input::Stack(raw) => {
                let resolved = resolver.resolve(&raw, now);
                let took = began.elapsed();
                answer.stack = Some(ResolvedStack { wanted: raw.wanted, resolved, took });
                drivers.note(&raw);
            }
            Input::Texts(texts) => {
                answer.uses = resolver.uses_of_texts(process, &*texts, now);
                log::debug!(
                    "process {}: {} uses of statements found in {} ms",
                    process.pid,
                    answer.uses.len(),
                    began.elapsed().as_millis()
                );
            }
            Input::Threads(wanted) => {
                let began = clock::thread_cpu_time();
                let taken = || clock::thread_cpu_time().saturating_sub(began);
                let seen = resolver.threads(process, &wanted, now, || taken() < LONGEST_LOOK);
                answer.threads = Some(LookedAt { seen, at: now, took: taken() });
            }
            Input::States(sessions) => {
                answer.states = drivers.read(&mut resolver, process, &sessions);
            }
        }
        if matches!(task, Task::Pools(_)) {
            answer.pools = reader.read(&mut resolver, process);
        }
        answer.profile = resolver.profile(process);
        // Sending fails only at shutdown, when the receiver is gone.
        let _ = answering.send(answer);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::procfs::identify;

    fn task_of(pid: u32) -> Task {
        Task::Sight(ProcessKey { pid, start_ticks: 0 })
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_counts() {
        let mut threads = ResolverThread::start(&[]).unwrap();
        threads.pending.extend((0..QUEUE as u32).map(|pid| task_of(pid + 1)));
        threads.first_sight(identify(std::process::id()).unwrap());
        assert_eq!(threads.refused(), 1);
        // A request that is pending already is not refused.
        threads.first_sight(task_of(1).process());
        assert_eq!(threads.refused(), 1);
    }

    #[tokio::test]
    async fn who_waits_for_a_lost_thread_is_answered() {
        let mut threads = ResolverThread::start(&[]).unwrap();
        let process = identify(std::process::id()).unwrap();
        threads.first_sight(process);
        assert_eq!(threads.answer().await.unwrap().task, Task::Sight(process));
        assert!(threads.is_idle());
        threads.pending.insert(task_of(1));
        threads.resolver.lose_thread();
        threads.restart(Worker::restart, |_| Err(io::ErrorKind::OutOfMemory.into()));
        assert!(threads.has_ended);
        assert_eq!(threads.answer().await.unwrap().task, task_of(1));
        threads.first_sight(process);
        assert_eq!(threads.refused(), 1);
        // There is room for a thread again.
        threads.replace_stuck();
        assert!(!threads.has_ended);
        threads.first_sight(process);
        assert_eq!(threads.answer().await.unwrap().task, Task::Sight(process));
    }
}
