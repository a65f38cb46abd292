//! Pools under changing load, healthy and leaking ones: nothing healthy may be called a leak, and
//! what is called one must be lost indeed.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::detect::{Reason, Severity, Thresholds, evaluate};
use crate::event::{ConnectionId, WireState};
use crate::findings::Ledger;
use crate::table::testing::{World, secs};

/// How a pool behaves.
#[derive(Clone, Copy, Debug)]
struct Plan {
    seed: u64,
    /// The connection returned last is used first.
    lifo: bool,
    most: usize,
    least_idle: usize,
    idle_timeout: f64,
    lifetime: f64,
    /// Longest that a connection is held.
    hold: f64,
    /// Requests a second, outside bursts.
    rate: f64,
    /// One request in so many loses its connection; 0: none.
    leak_one_in: u64,
    /// Every how many seconds a burst comes.
    burst_every: f64,
    burst: u64,
}

struct Simulation {
    plan: Plan,
    world: World,
    random: u64,
    next_id: u64,
    born: Vec<f64>,
    idle: VecDeque<(u64, f64)>,
    held: Vec<(u64, f64)>,
    lost: BTreeSet<ConnectionId>,
}

impl Simulation {
    fn new(plan: Plan) -> Self {
        Self {
            plan,
            world: World::new(),
            random: plan.seed,
            next_id: 0,
            born: Vec::new(),
            idle: VecDeque::new(),
            held: Vec::new(),
            lost: BTreeSet::new(),
        }
    }

    fn chance(&mut self) -> f64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) as f64 / (1_u64 << 31) as f64
    }

    fn size(&self) -> usize {
        self.idle.len() + self.held.len() + self.lost.len()
    }

    fn dial(&mut self, at: f64) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let jitter = 0.1 * self.plan.lifetime * self.chance();
        self.born.push(at - jitter);
        self.world.open(id, at);
        id
    }

    fn arrive(&mut self, at: f64) {
        let reused = if self.plan.lifo { self.idle.pop_back() } else { self.idle.pop_front() };
        let id = match reused {
            Some((id, _)) => id,
            None if self.size() < self.plan.most => self.dial(at),
            None => return,
        };
        let loses =
            self.plan.leak_one_in > 0 && self.chance() * (self.plan.leak_one_in as f64) < 1.0;
        let stack = if loses { "leak" } else { "work" };
        self.world.request(id, at + 0.01, stack, WireState::Idle);
        if loses {
            self.lost.insert(ConnectionId(id));
        } else {
            let until = at + self.plan.hold * self.chance().powi(2);
            self.held.push((id, until));
        }
    }

    fn step(&mut self, at: f64, tick: u64) {
        let (done, held): (Vec<_>, Vec<_>) = self.held.drain(..).partition(|held| held.1 <= at);
        self.held = held;
        self.idle.extend(done.into_iter().map(|(id, _)| (id, at)));
        if self.chance() < self.plan.rate * 0.1 {
            self.arrive(at);
        }
        if at % self.plan.burst_every < 0.05 {
            let height = self.plan.burst as f64 * self.chance();
            for number in 0..height as u64 {
                self.arrive(at + 0.001 * number as f64);
            }
        }
        if tick.is_multiple_of(300) {
            self.keep_house(at);
        }
    }

    /// What a pool does every 30 s: drop the old and the idle, fill up.
    fn keep_house(&mut self, at: f64) {
        let mut spare = self.idle.len().saturating_sub(self.plan.least_idle);
        for (id, since) in std::mem::take(&mut self.idle) {
            let old = at - self.born[usize::try_from(id).unwrap()] > self.plan.lifetime;
            let unused = spare > 0 && at - since > self.plan.idle_timeout;
            spare -= usize::from(unused);
            if old || unused {
                self.world.close(id, at);
            } else {
                self.idle.push_back((id, since));
            }
        }
        while self.idle.len() < self.plan.least_idle && self.size() < self.plan.most {
            let id = self.dial(at + 0.2);
            self.idle.push_back((id, at + 0.2));
        }
    }
}

/// Runs for `seconds`, judging every 10 s; returns the simulation and all that was ever accused.
fn run(plan: Plan, seconds: u64) -> (Simulation, Ledger, BTreeSet<ConnectionId>) {
    let silent_after = Duration::from_secs(60);
    let thresholds = Thresholds { silent_after, interval: Duration::from_secs(10), limit: None };
    let mut simulation = Simulation::new(plan);
    let mut ledger = Ledger::default();
    let mut accused = BTreeSet::new();
    for tick in 0..seconds * 10 {
        let at = 0.1 * tick as f64;
        simulation.step(at, tick);
        if tick % 100 == 99 {
            let table = &simulation.world.table;
            let now = secs(at + 0.09);
            let verdicts = evaluate(table, &thresholds, &ledger.standing(), now);
            let leaks = verdicts.iter().filter(|verdict| verdict.severity == Severity::Leak);
            let abandoned = leaks.filter(|verdict| verdict.reason == Reason::Abandoned);
            accused.extend(abandoned.flat_map(|verdict| verdict.connections.iter().copied()));
            ledger.update(verdicts, table, now);
        }
    }
    (simulation, ledger, accused)
}

fn plans() -> impl Iterator<Item = Plan> {
    (1..=24_u64).map(|seed| Plan {
        seed,
        lifo: seed % 2 == 0,
        most: if seed % 3 == 0 { 20 } else { 60 },
        least_idle: [0, 2, 10][usize::try_from(seed % 3).unwrap()],
        idle_timeout: [120.0, 600.0][usize::try_from(seed / 2 % 2).unwrap()],
        lifetime: [200.0, 1800.0][usize::try_from(seed / 4 % 2).unwrap()],
        hold: 8.0,
        rate: [0.2, 2.0, 5.0][usize::try_from(seed % 3).unwrap()],
        leak_one_in: 0,
        burst_every: [45.0, 130.0][usize::try_from(seed % 2).unwrap()],
        burst: 30,
    })
}

#[test]
fn healthy_pools_are_never_called_leaking() {
    for plan in plans() {
        let (_, ledger, accused) = run(plan, 1800);
        assert!(accused.is_empty(), "{plan:?}: {accused:?}");
        let leaks = ledger.open().into_iter().chain(ledger.retracted());
        let leaks: Vec<_> = leaks.filter(|f| f.verdict.severity == Severity::Leak).collect();
        assert!(leaks.is_empty(), "{plan:?}: {leaks:?}");
    }
}

#[test]
fn leaks_are_found_and_nothing_else() {
    for plan in plans() {
        // A pool that a burst has filled to its cap cannot grow when it leaks; there is no evidence
        // then, and its lost connections are told as silent.
        let plan = Plan { leak_one_in: 20, rate: plan.rate.max(1.0), burst: 10, ..plan };
        let (simulation, ledger, accused) = run(plan, 1200);
        let innocent: Vec<_> = accused.difference(&simulation.lost).collect();
        assert!(innocent.is_empty(), "{plan:?}: {innocent:?}");
        assert!(ledger.has_leak(), "{plan:?}");
        let found = accused.len() as f64 / simulation.lost.len() as f64;
        assert!(found > 0.8, "{plan:?}: {found} of {} found", simulation.lost.len());
    }
}
