//! Stacks are resolved on a thread of their own: a slow file never delays an event.

use std::collections::{HashSet, VecDeque};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::thread;

use leak_common::stack::StackProfile;
use tokio::sync::mpsc as channel;

use crate::clock;
use crate::event::{ConnectionId, ProcessKey, StackRole, Timestamp};
use crate::stacks::{DriverFrames, RawStack, Resolved, Resolver};

/// Requests that may wait; further ones are refused and counted.
const QUEUE: usize = 4096;
/// Processes to let go of that may wait for room in the queue.
const UNSENT: usize = 65_536;

/// What the thread is asked.
enum Request {
    /// Look at a process while it is there.
    FirstSight(ProcessKey),
    /// Resolve a stack.
    Resolve { id: ConnectionId, role: StackRole, at: Timestamp, stack: Box<RawStack> },
    /// The process is gone.
    Forget(ProcessKey),
}

/// What the thread has found out.
pub(super) struct Answer {
    /// About which process.
    pub(super) process: ProcessKey,
    /// What the kernel programs should know of it to copy its stacks well.
    pub(super) profile: Option<StackProfile>,
    /// The stack, when one was to be resolved.
    pub(super) stack: Option<ResolvedStack>,
}

/// A stack, resolved as far as it could be.
pub(super) struct ResolvedStack {
    /// The connection it was asked for.
    pub(super) id: ConnectionId,
    /// Which of its stacks.
    pub(super) role: StackRole,
    /// The moment it was asked for with: tells connections apart that used the same socket.
    pub(super) at: Timestamp,
    /// How many bytes of it were wanted.
    pub(super) wanted: u32,
    /// What was found.
    pub(super) resolved: Resolved,
}

/// The thread, seen from the event loop.
pub(super) struct ResolverThread {
    requests: SyncSender<Request>,
    answers: channel::UnboundedReceiver<Answer>,
    pending: HashSet<(ConnectionId, StackRole, Timestamp)>,
    /// Processes to let go of as soon as there is room in the queue.
    unsent: VecDeque<ProcessKey>,
    /// Processes that are still to be looked at.
    unseen: usize,
    refused: u64,
}

impl ResolverThread {
    /// Starts the thread. It ends when this is dropped.
    pub(super) fn start(driver_frames: Vec<DriverFrames>) -> std::io::Result<Self> {
        let (requests, incoming) = mpsc::sync_channel(QUEUE);
        let (outgoing, answers) = channel::unbounded_channel();
        thread::Builder::new().name("resolver".into()).spawn(move || {
            let mut resolver = Resolver::new();
            resolver.set_driver_frames(driver_frames);
            for request in incoming {
                if let Some(answer) = serve(&mut resolver, request)
                    && outgoing.send(answer).is_err()
                {
                    break;
                }
            }
        })?;
        Ok(Self {
            requests,
            answers,
            pending: HashSet::new(),
            unsent: VecDeque::new(),
            unseen: 0,
            refused: 0,
        })
    }

    /// Has a process looked at before it can exit.
    pub(super) fn first_sight(&mut self, process: ProcessKey) {
        self.unseen += usize::from(self.send(Request::FirstSight(process)));
    }

    /// Has a stack resolved, unless it is being resolved already. `at` is the moment it belongs to.
    pub(super) fn resolve(
        &mut self,
        id: ConnectionId,
        role: StackRole,
        at: Timestamp,
        stack: RawStack,
    ) {
        if self.pending.insert((id, role, at))
            && !self.send(Request::Resolve { id, role, at, stack: Box::new(stack) })
        {
            self.pending.remove(&(id, role, at));
        }
    }

    /// Lets go of a process that is gone.
    pub(super) fn forget(&mut self, process: ProcessKey) {
        if self.unsent.len() == UNSENT {
            // The oldest is kept in the resolver instead.
            self.unsent.pop_front();
        }
        self.unsent.push_back(process);
        self.send_unsent();
    }

    /// The next answer.
    pub(super) async fn answer(&mut self) -> Option<Answer> {
        let answer = self.answers.recv().await?;
        match &answer.stack {
            Some(stack) => {
                self.pending.remove(&(stack.id, stack.role, stack.at));
            }
            None => self.unseen = self.unseen.saturating_sub(1),
        }
        Some(answer)
    }

    /// Whether every request has been answered.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.unseen == 0
    }

    /// Requests that were refused because too many waited.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    fn send_unsent(&mut self) {
        while let Some(&process) = self.unsent.front() {
            if self.requests.try_send(Request::Forget(process)).is_err() {
                break;
            }
            self.unsent.pop_front();
        }
    }

    fn send(&mut self, request: Request) -> bool {
        self.send_unsent();
        match self.requests.try_send(request) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.refused += 1;
                false
            }
        }
    }
}

fn serve(resolver: &mut Resolver, request: Request) -> Option<Answer> {
    match request {
        Request::FirstSight(process) => {
            if let Err(error) = resolver.first_sight(process, clock::now()) {
                log::debug!("process {}: {error}", process.pid);
            }
            let profile = resolver.profile(process);
            Some(Answer { process, profile, stack: None })
        }
        Request::Resolve { id, role, at, stack } => {
            let resolved = resolver.resolve(&stack, clock::now());
            let (process, wanted) = (stack.process, stack.wanted);
            let profile = resolver.profile(process);
            let stack = Some(ResolvedStack { id, role, at, wanted, resolved });
            Some(Answer { process, profile, stack })
        }
        Request::Forget(process) => {
            resolver.forget(process);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_delays_letting_go_and_skips_no_stack() {
        let (requests, incoming) = mpsc::sync_channel(1);
        let (_, answers) = channel::unbounded_channel();
        let (pending, unsent) = (HashSet::new(), VecDeque::new());
        let mut thread =
            ResolverThread { requests, answers, pending, unsent, unseen: 0, refused: 0 };
        let [first, second] = [1, 2].map(|pid| ProcessKey { pid, start_ticks: 0 });
        thread.forget(first);
        thread.forget(second);
        assert!(matches!(incoming.try_recv(), Ok(Request::Forget(process)) if process == first));
        // The waiting one goes first, so that this finds the queue full.
        thread.first_sight(first);
        assert!(matches!(incoming.try_recv(), Ok(Request::Forget(process)) if process == second));
        assert_eq!((thread.refused(), thread.unsent.len()), (1, 0));
    }
}
