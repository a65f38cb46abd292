//! Stacks are resolved on threads of their own: a slow file never delays an event.
//!
//! There are two in a row. The first opens the files of processes when they appear, so that one
//! which exits at once still resolves, however long the second takes over what others have asked.
//! The second unwinds and symbolizes. One that does not come back from a file is left behind.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use tokio::sync::mpsc as channel;

use crate::clock;
use crate::model::{ConnectionId, ProcessKey, StackRole, Timestamp};
use crate::trace::worker::{Service, Worker};
use leak_stacks::{
    DriverFrames, MappingReader, ProcessSnapshot, RawStack, ReadWatchdog, Resolved, Resolver,
    StackProfile, TruncationReason,
};

/// Requests that may wait; further ones are refused and counted.
const QUEUE: usize = 4096;
/// How long one request may take: the largest binaries on slow disks take seconds.
const LIMIT: Duration = Duration::from_secs(20);
/// Threads that are left behind, of either kind, before no more are started.
const MAX_LEFT_BEHIND: usize = 8;

/// What a request is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Task {
    /// Look at a process while it is there.
    Sight(ProcessKey),
    /// Resolve a stack. The moment tells connections apart that used the same socket.
    Resolve { process: ProcessKey, id: ConnectionId, role: StackRole, at: Timestamp },
    /// Let go of a process that is gone.
    Forget(ProcessKey),
}

impl Task {
    /// The process that it is about.
    pub(super) fn process(self) -> ProcessKey {
        match self {
            Self::Sight(process) | Self::Resolve { process, .. } | Self::Forget(process) => process,
        }
    }
}

/// What the second thread gets from the first.
struct Work {
    snapshot: Option<ProcessSnapshot>,
    stack: Option<Box<RawStack>>,
}

type Pinning = Worker<Option<Box<RawStack>>, Task>;
type Resolving = Worker<Work, Task>;

/// What the threads have found out.
pub(super) struct Answer {
    /// What was asked.
    pub(super) task: Task,
    /// What the kernel programs should know of the process to copy its stacks well.
    pub(super) profile: Option<StackProfile>,
    /// The stack, when one was to be resolved.
    pub(super) stack: Option<ResolvedStack>,
}

/// A stack that was to be resolved.
pub(super) struct ResolvedStack {
    /// How many bytes of it were to be copied.
    pub(super) wanted: u32,
    /// What was found.
    pub(super) resolved: Resolved,
    /// How long that took.
    pub(super) took: Duration,
}

/// The threads, seen from the event loop.
pub(super) struct ResolverThread {
    pinner: Pinning,
    resolver: Resolving,
    watch: Arc<ReadWatchdog>,
    answers: channel::UnboundedReceiver<Answer>,
    answering: channel::UnboundedSender<Answer>,
    pending: HashSet<Task>,
    refused: u64,
    /// So many threads were left behind that no more are started.
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

    /// Has a process looked at before it can exit.
    pub(super) fn first_sight(&mut self, process: ProcessKey) {
        self.send(Task::Sight(process), None);
    }

    /// Has a stack resolved, unless it is being resolved already; says whether it will be. `at` is
    /// the moment that its connection was opened.
    pub(super) fn resolve(
        &mut self,
        id: ConnectionId,
        role: StackRole,
        at: Timestamp,
        stack: RawStack,
    ) -> bool {
        let task = Task::Resolve { process: stack.process, id, role, at };
        self.send(task, Some(Box::new(stack)))
    }

    /// Lets go of a process that is gone.
    pub(super) fn forget(&mut self, process: ProcessKey) {
        // Without the thread there is nothing to let go of.
        let _ = self.pinner.requests().send((Task::Forget(process), None));
    }

    /// The next answer.
    pub(super) async fn answer(&mut self) -> Option<Answer> {
        loop {
            let answer = self.answers.recv().await?;
            // A thread that was given up may come back with an answer that nobody waits for any
            // more.
            if self.pending.remove(&answer.task) {
                return Some(answer);
            }
        }
    }

    /// How many stacks have not been resolved yet.
    pub(super) fn unresolved(&self) -> usize {
        self.pending.iter().filter(|task| matches!(task, Task::Resolve { .. })).count()
    }

    /// Whether every request has been answered.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// Requests that were refused because too many waited.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// Leaves a thread behind that does not come back, and starts another in its place.
    pub(super) fn replace_stuck(&mut self) {
        self.replace_slower_than(LIMIT);
    }

    fn replace_slower_than(&mut self, limit: Duration) {
        if let Some(task) = self.pinner.give_up(limit) {
            self.watch.give_up_process(task.process());
            self.carry_on_without(task, limit);
            self.restart(Worker::restart, |_| Ok(()));
        }
        if let Some(task) = self.resolver.give_up(limit) {
            self.watch.give_up(task.process());
            self.carry_on_without(task, limit);
            self.restart(|_| Ok(()), Worker::restart);
        }
    }

    fn carry_on_without(&self, task: Task, limit: Duration) {
        log::warn!(
            "looking at process {} takes longer than {} s: a file that it runs does not answer, so \
             its stacks stay incomplete",
            task.process().pid,
            limit.as_secs()
        );
        self.give_no_answer(task);
    }

    fn restart(
        &mut self,
        pinner: impl FnOnce(&Pinning) -> io::Result<()>,
        resolver: impl FnOnce(&Resolving) -> io::Result<()>,
    ) {
        let left_behind = self.pinner.left_behind() + self.resolver.left_behind();
        let restarted = if left_behind < MAX_LEFT_BEHIND {
            pinner(&self.pinner).and_then(|()| resolver(&self.resolver))
        } else {
            Err(io::Error::other(format!("{left_behind} threads wait for files already")))
        };
        if let Err(error) = restarted {
            log::warn!("no more stacks are resolved: {error}");
            self.has_ended = true;
            self.pending.iter().for_each(|task| self.give_no_answer(*task));
        }
    }

    /// Answers for a thread that does not.
    fn give_no_answer(&self, task: Task) {
        let is_stack = matches!(task, Task::Resolve { .. });
        let none = Resolved::without_stack(TruncationReason::UnresponsiveFile);
        let stack =
            is_stack.then_some(ResolvedStack { wanted: 0, resolved: none, took: Duration::ZERO });
        // The receiver is this thread's own, so it is there.
        let _ = self.answering.send(Answer { task, profile: None, stack });
    }

    /// Whether the request was taken, or is under way already.
    fn send(&mut self, task: Task, stack: Option<Box<RawStack>>) -> bool {
        if self.pending.contains(&task) {
            return true;
        }
        let taken = !self.has_ended
            && self.pending.len() < QUEUE
            && self.pinner.requests().send((task, stack)).is_ok();
        if taken {
            self.pending.insert(task);
        } else {
            self.refused += 1;
        }
        taken
    }
}

/// What the first thread does.
fn pinning(
    watch: &Arc<ReadWatchdog>,
    work: Sender<(Task, Work)>,
) -> Service<Task, Option<Box<RawStack>>> {
    let (mut pinner, watch) = (MappingReader::default(), Arc::clone(watch));
    Box::new(move |task, stack| {
        let snapshot = match task {
            Task::Sight(process) if !watch.has_given_up(process) => {
                let look = pinner.look(process, clock::now());
                look.map_err(|error| log::debug!("process {}: {error}", process.pid)).ok()
            }
            _ => None,
        };
        // Without the second thread everything is about to end.
        let _ = work.send((task, Work { snapshot, stack }));
    })
}

/// What the second thread does.
fn resolving(
    watch: &Arc<ReadWatchdog>,
    driver_frames: &[DriverFrames],
    answering: channel::UnboundedSender<Answer>,
) -> Service<Task, Work> {
    let mut resolver = Resolver::new(Arc::clone(watch));
    resolver.set_driver_frames(driver_frames.to_vec());
    Box::new(move |task, Work { snapshot, stack }| {
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
            Task::Forget(_) => return resolver.forget(process),
            Task::Resolve { .. } => {}
        }
        let stack = stack.map(|stack| {
            let began = Instant::now();
            let resolved = resolver.resolve(&stack, now);
            ResolvedStack { wanted: stack.wanted, resolved, took: began.elapsed() }
        });
        // Without the receiver everything is about to end.
        let _ = answering.send(Answer { task, profile: resolver.profile(process), stack });
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
        // What is under way already is no further request.
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
        for _ in 0..MAX_LEFT_BEHIND {
            assert!(!threads.has_ended);
            threads.restart(|_| Err(io::ErrorKind::OutOfMemory.into()), |_| Ok(()));
            assert!(std::mem::take(&mut threads.has_ended));
        }
        assert_eq!(threads.answer().await.unwrap().task, task_of(1));
    }
}
