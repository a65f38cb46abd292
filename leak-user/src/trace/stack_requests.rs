//! Stacks, from the kernel's copy to facts: requested here, resolved on other threads, and
//! answered.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use leak_stacks::StackProfile;
use leak_stacks::{DriverFrames, Quality, RawStack, StackCounts, TruncationReason, WantedThreads};

use crate::clock;
use crate::engine::Engine;
use crate::model::{ConnectionId, Event, Fact, ProcessKey, StackRole, Timestamp};
use crate::outputs::OutputError;
use crate::sources::drivers::{ProcessStates, WantedState};
use crate::sources::kernel::Tracer;
use crate::sources::kernel::decode;
use crate::sources::pools::ProcessPools;
use crate::sources::postgres::WantedStatements;
use crate::trace::look::LookedAt;
use crate::trace::resolver::{Answer, ResolvedStack, ResolverThread, Task};
use crate::trace::senders;
use crate::trace::session::Session;

/// Most stacks of an interval of which it is kept how long they took.
const MAX_TIMES: usize = 4096;

/// The resolver's threads, and how the stacks that were wanted came out.
pub(super) struct StackRequests {
    resolver: ResolverThread,
    counts: StackCounts,
    /// How long each stack took to resolve since that was last asked.
    times: Vec<Duration>,
    /// How many uses of each connection are reported.
    uses: u32,
    /// The statements that are being looked for in the programs of processes.
    searches: HashMap<ProcessKey, Vec<String>>,
    last_search: u64,
}

/// What an answer of the resolver comes to.
#[derive(Debug)]
pub(super) struct Learnt {
    /// The process that it is about.
    pub(super) process: ProcessKey,
    /// What the kernel programs should know to copy its stacks well.
    pub(super) profile: Option<StackProfile>,
    /// How many bytes of its stack were copied, when they were too few.
    pub(super) too_short: Option<u32>,
    /// The stack, and whose it is.
    pub(super) facts: Vec<Fact>,
    /// What was seen of its threads.
    pub(super) threads: Option<LookedAt>,
    /// The process's pools.
    pub(super) pools: Option<ProcessPools>,
    /// The states of its sessions.
    pub(super) states: Option<ProcessStates>,
}

impl StackRequests {
    /// Starts the resolver's threads.
    pub(super) fn start(driver_frames: &[DriverFrames], uses: u32) -> io::Result<Self> {
        let resolver = ResolverThread::start(driver_frames)?;
        let (counts, times, searches) = Default::default();
        Ok(Self { resolver, counts, times, uses, searches, last_search: 0 })
    }

    /// Opens the binaries of a process before it can exit.
    pub(super) fn first_sight(&mut self, process: ProcessKey) {
        self.resolver.first_sight(process);
    }

    /// Drops what is known of a process that is gone.
    pub(super) fn forget(&mut self, process: ProcessKey) {
        self.resolver.forget(process);
    }

    /// Requests a stack, or counts why there is none. `at` is when its connection was opened, which
    /// tells it from others that used the same socket.
    pub(super) fn request(
        &mut self,
        id: ConnectionId,
        role: StackRole,
        at: Timestamp,
        stack: Result<RawStack, TruncationReason>,
    ) {
        let requested = stack.and_then(|stack| match self.resolver.resolve(id, role, at, stack) {
            true => Ok(()),
            false => Err(TruncationReason::TooManyWaiting),
        });
        if let Err(missing) = requested {
            self.counts.add(Quality::None, Some(missing));
        }
    }

    /// Requests the stacks of these connections' latest requests.
    pub(super) fn fetch(
        &mut self,
        wanted: Vec<(ConnectionId, u64)>,
        tracer: &Tracer,
        session: &mut Session,
    ) -> Result<(), OutputError> {
        for (id, request) in wanted {
            let role = StackRole::LastUsedBy { request };
            let stack = recorded(tracer, id, request);
            if stack.is_err() {
                // An older one would accuse an innocent.
                let event = Event::StackResolved { id, role, stack: None, goroutine: None };
                session.tell(clock::now(), &Fact::Event(event))?;
            }
            self.request(id, role, opened_at(session.engine(), id), stack);
        }
        Ok(())
    }

    /// Looks for statements in the programs of processes; later where a search is under way.
    pub(super) fn find_senders(&mut self, wanted: HashMap<ProcessKey, Vec<String>>) {
        for (process, statements) in wanted {
            if self.searches.contains_key(&process) {
                continue;
            }
            let texts = WantedStatements::new(statements.iter().map(String::as_str));
            self.last_search += 1;
            if self.resolver.find_texts(process, self.last_search, Box::new(texts)) {
                self.searches.insert(process, statements);
            }
        }
    }

    /// Tells the latest uses of every connection, when they are to be reported, and requests their
    /// stacks.
    pub(super) fn fetch_uses(
        &mut self,
        tracer: &Tracer,
        session: &mut Session,
    ) -> Result<(), OutputError> {
        if self.uses == 0 {
            return Ok(());
        }
        let ids: Vec<_> = session.engine().table().connections().map(|known| known.id).collect();
        for id in ids {
            let kept = tracer.uses(id);
            let uses = kept.map(|kept| decode::uses(&kept, self.uses)).unwrap_or_default();
            let requests: Vec<_> = uses.iter().map(|one| one.request).collect();
            session.tell(clock::now(), &Fact::Event(Event::Uses { id, uses }))?;
            for request in requests {
                let at = opened_at(session.engine(), id);
                let stack = recorded(tracer, id, request);
                self.request(id, StackRole::UsedBy { request }, at, stack);
            }
        }
        Ok(())
    }

    /// Requests a look at the threads of a process; false: it was refused.
    pub(super) fn look_at(&mut self, process: ProcessKey, threads: WantedThreads) -> bool {
        self.resolver.look_at(process, threads)
    }

    /// Requests that the pools of these processes be read.
    pub(super) fn read_pools(&mut self, processes: impl Iterator<Item = ProcessKey>) {
        processes.for_each(|process| self.resolver.read_pools(process));
    }

    /// Requests that the drivers of these processes be asked for the states of sessions.
    pub(super) fn read_states(&mut self, wanted: BTreeMap<ProcessKey, Vec<WantedState>>) {
        for (process, sessions) in wanted {
            self.resolver.read_states(process, sessions);
        }
    }

    /// The resolver's next answer; `None` when its threads have died.
    pub(super) async fn answer(&mut self) -> Option<Answer> {
        self.resolver.answer().await
    }

    /// Makes facts of an answer, except when its connection is no longer the one that was asked
    /// about.
    pub(super) fn take(&mut self, answer: Answer, engine: &Engine) -> Learnt {
        let Answer { task, profile, stack, uses, threads, pools, states } = answer;
        let process = task.process();
        let facts = Vec::new();
        let mut learnt =
            Learnt { process, profile, too_short: None, facts, threads, pools, states };
        if let Task::Texts { process, .. } = task {
            let statements = self.searches.remove(&process).unwrap_or_default();
            let code = senders::code_of(&statements, &uses);
            let facts = statements.into_iter().zip(code);
            learnt.facts.extend(facts.map(|(statement, code)| Fact::Sender {
                process,
                statement,
                code,
            }));
        }
        let (Task::Resolve { id, role, at, .. }, Some(stack)) = (task, stack) else {
            return learnt;
        };
        let ResolvedStack { wanted, resolved, took } = stack;
        if self.times.len() < MAX_TIMES {
            self.times.push(took);
        }
        let quality = resolved.stack.as_ref().map_or(Quality::None, |stack| stack.quality);
        self.counts.add(quality, resolved.truncation);
        let known = engine.table().get(id).and_then(|connection| connection.opened_at);
        if known.is_some_and(|known| known != at) {
            return learnt;
        }
        learnt.too_short = resolved.frames_wanted_more.then_some(wanted);
        let new = resolved.stack.as_ref().filter(|stack| !engine.has_stack(stack));
        learnt.facts.extend(new.map(|stack| Fact::Stack(Arc::clone(stack))));
        let stack = resolved.stack.map(|stack| stack.id);
        let event = Event::StackResolved { id, role, stack, goroutine: resolved.goroutine };
        learnt.facts.push(Fact::Event(event));
        learnt
    }

    /// How long each stack took to resolve since this was last asked, in the order of the answers.
    pub(super) fn take_times(&mut self) -> Vec<Duration> {
        std::mem::take(&mut self.times)
    }

    /// Whether every request was answered.
    pub(super) fn are_answered(&self) -> bool {
        self.resolver.is_idle()
    }

    /// Replaces a thread of the resolver's that hangs.
    pub(super) fn replace_stuck(&mut self) {
        self.resolver.replace_stuck();
    }

    /// Counts the requests that are not answered as stacks that came too late.
    pub(super) fn give_up(&mut self) {
        for _ in 0..self.resolver.unresolved() {
            self.counts.add(Quality::None, Some(TruncationReason::NotInTime));
        }
    }

    /// How the stacks that were wanted came out.
    pub(super) fn counts(&self) -> StackCounts {
        self.counts
    }

    /// Requests that were refused because too many waited.
    pub(super) fn refused(&self) -> u64 {
        self.resolver.refused()
    }
}

/// The stack of a request, as the flight recorder has it.
fn recorded(tracer: &Tracer, id: ConnectionId, request: u64) -> Result<RawStack, TruncationReason> {
    let (header, bytes) =
        tracer.recorded_stack(id, request).ok_or(TruncationReason::NotRecorded)?;
    decode::raw_stack(&header, &bytes)
}

fn opened_at(engine: &Engine, id: ConnectionId) -> Timestamp {
    engine.table().get(id).and_then(|known| known.opened_at).unwrap_or_default()
}
