//! A made-up pool at work.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fastrand::Rng;

use crate::engine::detect::tests::programs::plan::{Order, Plan, one_in};
use crate::engine::testing::World;
use crate::model::ConnectionId;

/// What pools share.
pub(super) struct Shared {
    pub(super) world: World,
    pub(super) random: Rng,
    pub(super) next_id: u64,
    /// No stack is known.
    pub(super) nameless: bool,
    /// Lost connections, and when each was.
    pub(super) lost: BTreeMap<ConnectionId, f64>,
}

impl Shared {
    pub(super) fn open(&mut self, at: f64, tid: u32) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.world.dial(id, at);
        self.world.establish(id, at + 0.001);
        self.request(id, at + 0.002, "startup", tid);
        id
    }

    pub(super) fn request(&mut self, id: u64, at: f64, stack: &str, tid: u32) {
        let stack = if self.nameless { "" } else { stack };
        self.world.request_by(id, at, stack, tid);
    }
}

/// A pool, and what it has.
pub(super) struct Pool {
    plan: Plan,
    /// Tells its threads and functions from those of other pools.
    number: u32,
    born: BTreeMap<u64, f64>,
    idle: VecDeque<(u64, f64)>,
    held: Vec<(u64, f64)>,
    lost: usize,
    /// Of the pool that this one has replaced, with the moment of their end.
    old: Vec<(u64, f64)>,
    former: BTreeSet<u64>,
}

impl Pool {
    pub(super) fn new(plan: Plan, number: u32, shared: &mut Shared) -> Self {
        let mut pool = Self {
            plan,
            number,
            born: BTreeMap::new(),
            idle: VecDeque::new(),
            held: Vec::new(),
            lost: 0,
            old: Vec::new(),
            former: BTreeSet::new(),
        };
        pool.warm_up(1.0, shared);
        pool
    }

    fn warm_up(&mut self, from: f64, shared: &mut Shared) {
        for number in 0..self.plan.warm_up {
            let at = from + self.plan.warm_up_pace * number as f64;
            let tid = self.thread(shared);
            let id = self.dial(at, tid, shared);
            self.idle.push_back((id, at));
        }
    }

    fn size(&self) -> usize {
        self.idle.len() + self.held.len() + self.lost
    }

    fn thread(&self, shared: &mut Shared) -> u32 {
        self.number * 1000 + shared.random.u32(..self.plan.threads)
    }

    fn dial(&mut self, at: f64, tid: u32, shared: &mut Shared) -> u64 {
        let tid = if self.plan.helper { self.number * 1000 + 999 } else { tid };
        let id = shared.open(at, tid);
        let jitter = self.plan.jitter * self.plan.lifetime * shared.random.f64();
        self.born.insert(id, at - jitter);
        id
    }

    fn take_idle(&mut self, random: &mut Rng) -> Option<u64> {
        let taken = match self.plan.order {
            Order::Lifo => self.idle.pop_back(),
            Order::Fifo => self.idle.pop_front(),
            Order::Random => {
                let index = random.usize(..self.idle.len().max(1));
                self.idle.remove(index)
            }
        };
        taken.map(|(id, _)| id)
    }

    fn arrive(&mut self, at: f64, shared: &mut Shared) {
        let tid = self.thread(shared);
        let id = match self.take_idle(&mut shared.random) {
            Some(id) => id,
            None if self.size() < self.plan.most => self.dial(at, tid, shared),
            None => return,
        };
        let leaks = self.plan.leak_one_in > 0 && one_in(&mut shared.random, self.plan.leak_one_in);
        let function = shared.random.usize(..self.plan.functions);
        let stack = match (leaks, self.plan.leaks_in_work) {
            (true, false) => "leak".to_owned(),
            (true, true) => format!("work {} 0", self.number),
            (false, _) => format!("work {} {function}", self.number),
        };
        shared.request(id, at + 0.005, &stack, tid);
        if leaks {
            self.lost += 1;
            shared.lost.insert(ConnectionId(id), at);
        } else {
            let until = at + 0.01 + self.plan.hold * shared.random.f64().powi(2);
            self.held.push((id, until));
        }
    }

    /// A tenth of a second passes.
    pub(super) fn step(&mut self, at: f64, tick: u64, shared: &mut Shared) {
        let (done, held): (Vec<_>, Vec<_>) = self.held.drain(..).partition(|held| held.1 <= at);
        self.held = held;
        for (id, _) in done {
            if self.former.remove(&id) {
                shared.world.close(id, at);
            } else {
                self.idle.push_back((id, at));
            }
        }
        if self.plan.restart.is_some_and(|(when, _)| (at - when).abs() < 0.05) {
            self.restart(at, shared);
        }
        let (ended, old): (Vec<_>, Vec<_>) = self.old.drain(..).partition(|old| old.1 <= at);
        self.old = old;
        for (id, _) in ended {
            shared.world.close(id, at);
        }
        let rests = at >= self.plan.rest.0 && at < self.plan.rest.1;
        if !rests {
            if shared.random.f64() < self.plan.rate * 0.1 {
                self.arrive(at, shared);
            }
            if at % self.plan.burst_every < 0.05 {
                let height = match self.plan.crest {
                    0.0 => shared.random.usize(..self.plan.burst),
                    crest => 2 + (at % crest / self.plan.burst_every) as usize,
                };
                for number in 0..height {
                    self.arrive(at + 0.001 * number as f64, shared);
                }
            }
        }
        let is_due = |every: f64| every > 0.0 && tick.is_multiple_of((every * 10.0) as u64);
        if self.plan.keepalive > 0.0 && is_due(1.0) {
            self.ping(at, shared);
        }
        if is_due(self.plan.housekeeping) {
            self.keep_house(at, shared);
        }
    }

    fn restart(&mut self, at: f64, shared: &mut Shared) {
        let kept = self.plan.restart.map_or(0.0, |(_, kept)| kept);
        self.old = self.idle.drain(..).map(|(id, _)| (id, at + kept)).collect();
        self.former = self.held.iter().map(|(id, _)| *id).collect();
        self.warm_up(at + 0.01, shared);
    }

    fn ping(&mut self, at: f64, shared: &mut Shared) {
        let helper = self.number * 1000 + 998;
        for (id, since) in &mut self.idle {
            if at - *since >= self.plan.keepalive {
                shared.request(*id, at, "ping", helper);
                *since = at;
            }
        }
    }

    /// Drops the old and the idle, and fills up.
    fn keep_house(&mut self, at: f64, shared: &mut Shared) {
        let mut spare = self.idle.len().saturating_sub(self.plan.least_idle);
        for (id, since) in std::mem::take(&mut self.idle) {
            let old = at - self.born[&id] > self.plan.lifetime;
            let unused = spare > 0 && at - since > self.plan.idle_timeout;
            spare -= usize::from(unused);
            if old || unused {
                shared.world.close(id, at);
            } else {
                self.idle.push_back((id, since));
            }
        }
        while self.idle.len() < self.plan.least_idle && self.size() < self.plan.most {
            let tid = self.thread(shared);
            let id = self.dial(at + 0.02, tid, shared);
            self.idle.push_back((id, at + 0.02));
        }
    }
}
