//! Stacks are resolved on a thread of their own: a slow file never delays an event.

use std::collections::HashSet;
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::thread;

use leak_common::stack::StackProfile;
use tokio::sync::mpsc as channel;

use crate::clock;
use crate::event::{ConnectionId, ProcessKey, StackRole};
use crate::stacks::{RawStack, Resolved, Resolver};

/// Requests that may wait; further ones are refused and counted.
const QUEUE: usize = 4096;

/// What the thread is asked.
enum Request {
    /// Look at a process while it is there.
    FirstSight(ProcessKey),
    /// Resolve a stack.
    Resolve { id: ConnectionId, role: StackRole, stack: Box<RawStack> },
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
    /// How many bytes of it were wanted.
    pub(super) wanted: u32,
    /// What was found.
    pub(super) resolved: Resolved,
}

/// The thread, seen from the event loop.
pub(super) struct ResolverThread {
    requests: SyncSender<Request>,
    answers: channel::UnboundedReceiver<Answer>,
    pending: HashSet<(ConnectionId, StackRole)>,
    /// Processes that are still to be looked at.
    unseen: usize,
    refused: u64,
}

impl ResolverThread {
    /// Starts the thread. It ends when this is dropped.
    pub(super) fn start() -> std::io::Result<Self> {
        let (requests, incoming) = mpsc::sync_channel(QUEUE);
        let (outgoing, answers) = channel::unbounded_channel();
        thread::Builder::new().name("resolver".into()).spawn(move || {
            let mut resolver = Resolver::new();
            for request in incoming {
                if let Some(answer) = serve(&mut resolver, request)
                    && outgoing.send(answer).is_err()
                {
                    break;
                }
            }
        })?;
        Ok(Self { requests, answers, pending: HashSet::new(), unseen: 0, refused: 0 })
    }

    /// Has a process looked at before it can exit.
    pub(super) fn first_sight(&mut self, process: ProcessKey) {
        self.unseen += usize::from(self.send(Request::FirstSight(process)));
    }

    /// Has a stack resolved, unless it is being resolved already.
    pub(super) fn resolve(&mut self, id: ConnectionId, role: StackRole, stack: RawStack) {
        if self.pending.insert((id, role))
            && !self.send(Request::Resolve { id, role, stack: Box::new(stack) })
        {
            self.pending.remove(&(id, role));
        }
    }

    /// Lets go of a process that is gone.
    pub(super) fn forget(&mut self, process: ProcessKey) {
        self.send(Request::Forget(process));
    }

    /// The next answer.
    pub(super) async fn answer(&mut self) -> Option<Answer> {
        let answer = self.answers.recv().await?;
        match &answer.stack {
            Some(stack) => {
                self.pending.remove(&(stack.id, stack.role));
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

    fn send(&mut self, request: Request) -> bool {
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
        Request::Resolve { id, role, stack } => {
            let resolved = resolver.resolve(&stack, clock::now());
            let (process, wanted) = (stack.process, stack.wanted);
            let profile = resolver.profile(process);
            let stack = Some(ResolvedStack { id, role, wanted, resolved });
            Some(Answer { process, profile, stack })
        }
        Request::Forget(process) => {
            resolver.forget(process);
            None
        }
    }
}
