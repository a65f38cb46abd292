//! Looks at the threads of programs: who waits for a connection, and where those are that used the
//! silent ones last.
//!
//! The resolver's thread does the looking, beside the event loop.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use leak_stacks::{BlockedThread, ThreadId, WantedThreads, waits_for_connection};

use crate::engine::Engine;
use crate::engine::fate::User;
use crate::model::{
    ConnectionId, Event, Fact, ProcessKey, StackId, Timestamp, Waiters, Whereabouts,
};
use crate::trace::feedback;
use crate::trace::look::{LookedAt, Wanted};
use crate::trace::stack_requests::StackRequests;

/// Most processes that are looked at in one interval; the others have their turn later.
const MAX_PROCESSES: usize = 64;

/// What the looks since an interval have cost.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LookCost {
    pub(super) threads: usize,
    pub(super) took: Duration,
}

/// The looks that are under way.
#[derive(Debug)]
pub(super) struct Looks {
    /// Look for who waits in every process, and not only where a pool may be exhausted.
    everywhere: bool,
    wanted: HashMap<ProcessKey, Wanted>,
    /// The process that was looked at last.
    last: Option<ProcessKey>,
    cost: LookCost,
}

impl Looks {
    pub(super) fn new(everywhere: bool) -> Self {
        Self { everywhere, wanted: HashMap::new(), last: None, cost: LookCost::default() }
    }

    /// Begins to look.
    pub(super) fn begin(&mut self, engine: &Engine, now: Timestamp, stacks: &mut StackRequests) {
        let wanted = feedback::threads_to_look_at(engine, now, self.everywhere);
        for (process, wanted) in in_turn(wanted, self.last) {
            let these = wanted.users.iter().map(|&(_, _, user)| id(user)).collect();
            let threads = WantedThreads { these, all: wanted.waiters };
            if stacks.look_at(process, threads) {
                self.last = Some(process);
                self.wanted.insert(process, wanted);
            }
        }
    }

    /// Makes facts of what a look has shown.
    pub(super) fn take(
        &mut self,
        process: ProcessKey,
        looked: LookedAt,
        engine: &Engine,
    ) -> Vec<Fact> {
        let LookedAt { seen, at, took } = looked;
        self.cost.threads += seen.blocked.len();
        self.cost.took += took;
        let Some(wanted) = self.wanted.remove(&process) else { return Vec::new() };
        let mut facts = Facts { engine, told: Vec::new() };
        if wanted.waiters && !seen.blocked.is_empty() {
            facts.tell_waiters(process, at, &seen.blocked);
        }
        let place_of: HashMap<ThreadId, &BlockedThread> =
            seen.blocked.iter().map(|thread| (thread.id, thread)).collect();
        for (id, request, user) in wanted.users {
            let thread = self::id(user);
            let place = match place_of.get(&thread) {
                Some(thread) => facts.place(thread),
                None if seen.ended.contains(&thread) => Whereabouts::Ended,
                None => Whereabouts::Unknown,
            };
            facts.tell_user(id, request, place);
        }
        facts.told
    }

    /// What the looks since this was last asked have cost.
    pub(super) fn take_cost(&mut self) -> LookCost {
        std::mem::take(&mut self.cost)
    }
}

/// Facts that the engine does not know yet.
struct Facts<'a> {
    engine: &'a Engine,
    told: Vec<Fact>,
}

impl Facts<'_> {
    fn tell_waiters(&mut self, process: ProcessKey, at: Timestamp, blocked: &[BlockedThread]) {
        let mut waits: HashMap<StackId, bool> = HashMap::new();
        let mut by_stack: BTreeMap<StackId, Waiters> = BTreeMap::new();
        for thread in blocked {
            let stack = thread.stack.id;
            let may_wait =
                waits.entry(stack).or_insert_with(|| waits_for_connection(&thread.stack));
            if !*may_wait {
                continue;
            }
            let waiters = by_stack.entry(stack).or_insert_with(|| {
                self.tell_stack(thread);
                Waiters { count: 0, since: at, stack }
            });
            waiters.count += 1;
            waiters.since = waiters.since.min(thread.since);
        }
        let waiters = by_stack.into_values().collect();
        self.told.push(Fact::Event(Event::Waiting { process, at, waiters }));
    }

    fn place(&mut self, thread: &BlockedThread) -> Whereabouts {
        self.tell_stack(thread);
        Whereabouts::At(thread.stack.id)
    }

    fn tell_stack(&mut self, thread: &BlockedThread) {
        if !self.engine.has_stack(&thread.stack) {
            self.told.push(Fact::Stack(thread.stack.clone()));
        }
    }

    fn tell_user(&mut self, id: ConnectionId, request: u64, place: Whereabouts) {
        let known = self.engine.table().get(id);
        let seen = known.and_then(|connection| connection.callers.user_seen);
        if seen.unwrap_or(Whereabouts::Unknown) != place {
            self.told.push(Fact::Event(Event::UserSeen { id, request, place }));
        }
    }
}

/// As many as are looked at in one interval, beginning behind the one that was looked at last.
fn in_turn(
    mut wanted: BTreeMap<ProcessKey, Wanted>,
    last: Option<ProcessKey>,
) -> impl Iterator<Item = (ProcessKey, Wanted)> {
    let next = last.filter(|_| wanted.len() > MAX_PROCESSES).map_or_else(BTreeMap::new, |last| {
        let mut rest = wanted.split_off(&last);
        if let Some(done) = rest.remove(&last) {
            wanted.insert(last, done);
        }
        rest
    });
    next.into_iter().chain(wanted).take(MAX_PROCESSES)
}

fn id(user: User) -> ThreadId {
    match user {
        User::Thread(_, tid) => ThreadId::System(tid),
        User::Goroutine(_, number) => ThreadId::Goroutine(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_process_has_its_turn() {
        let process = |pid| ProcessKey { pid, start_ticks: 1 };
        let wanted: BTreeMap<_, _> =
            (0..100).map(|pid| (process(pid), Wanted::default())).collect();
        let pids = |last| -> Vec<u32> {
            in_turn(wanted.clone(), last).map(|(process, _)| process.pid).collect()
        };
        let first = pids(None);
        assert_eq!((first.len(), first[0]), (MAX_PROCESSES, 0));
        let second = pids(first.last().map(|&pid| process(pid)));
        assert_eq!((second.len(), second[0], second[36]), (MAX_PROCESSES, 64, 0));
        let few: BTreeMap<_, _> = (0..3).map(|pid| (process(pid), Wanted::default())).collect();
        assert_eq!(in_turn(few, Some(process(1))).count(), 3);
    }
}
