//! How a made-up program behaves.

use fastrand::Rng;

/// Which idle connection a pool uses next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The one returned last.
    Lifo,
    /// The one returned first.
    Fifo,
    /// Any.
    Random,
}

/// How a pool behaves. Times are in seconds.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) order: Order,
    pub(super) most: usize,
    pub(super) least_idle: usize,
    /// Opened at the start, one after the other at this distance.
    pub(super) warm_up: usize,
    pub(super) warm_up_pace: f64,
    pub(super) idle_timeout: f64,
    /// Highest age, and by what part of it ages differ.
    pub(super) lifetime: f64,
    pub(super) jitter: f64,
    /// How often the pool looks after what it has.
    pub(super) housekeeping: f64,
    /// Idle connections get a request that often; 0: never.
    pub(super) keepalive: f64,
    /// Longest that a connection is held after its last request.
    pub(super) hold: f64,
    /// Requests a second, outside bursts.
    pub(super) rate: f64,
    pub(super) burst_every: f64,
    pub(super) burst: usize,
    /// Bursts rise for so long, one more each time, and then begin anew; 0: they are of any height.
    pub(super) crest: f64,
    /// Between these moments there is no work.
    pub(super) rest: (f64, f64),
    /// When the pool is replaced by a new one, and how long the old one is kept.
    pub(super) restart: Option<(f64, f64)>,
    /// Threads that use it.
    pub(super) threads: u32,
    /// It dials on a thread of its own.
    pub(super) helper: bool,
    /// Functions that use it.
    pub(super) functions: usize,
    /// One request in so many loses its connection; 0: none.
    pub(super) leak_one_in: u64,
    /// What leaks is a function that mostly gives back.
    pub(super) leaks_in_work: bool,
}

/// A thread with a connection of its own.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    pub(super) starts: f64,
    /// How often it uses it, and by what part of that it differs.
    pub(super) period: f64,
    pub(super) jitter: f64,
    /// It is a task that runs on whatever thread is free.
    pub(super) wanders: bool,
}

/// Seconds between the connections of a warm-up that lasts longer than silence takes to count; work
/// begins after it.
const SLOWLY: f64 = 1.5;

/// A program: pools that look like one from outside, and threads with connections of their own.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) pools: Vec<Plan>,
    pub(super) bound: Vec<Bound>,
    /// No stack is known.
    pub(super) nameless: bool,
}

impl Program {
    /// A healthy program, another one for each seed.
    pub(super) fn healthy(seed: u64) -> Self {
        let random = &mut Rng::with_seed(seed);
        match random.u32(..8) {
            0 => Self::of(Vec::new(), bound(random)),
            1 => Self::of(vec![Plan::random(random), Plan::random(random)], Vec::new()),
            2 => Self::of(vec![Plan::resting(random), Plan::rising(random)], Vec::new()),
            _ => {
                let nameless = one_in(random, 4);
                Self { nameless, ..Self::of(vec![Plan::random(random)], Vec::new()) }
            }
        }
    }

    fn of(pools: Vec<Plan>, bound: Vec<Bound>) -> Self {
        Self { pools, bound, nameless: false }
    }

    /// The same with a leak in its first pool.
    pub(super) fn leaking(seed: u64) -> Self {
        let random = &mut Rng::with_seed(seed);
        let mut pools = vec![Plan::random(random)];
        if one_in(random, 8) {
            pools.push(Plan::random(random));
        }
        let first = &mut pools[0];
        first.rest = (0.0, 0.0);
        first.rate = first.rate.max(1.0);
        first.leak_one_in = pick(random, [10, 30, 100]);
        first.leaks_in_work = one_in(random, 3);
        Self::of(pools, Vec::new())
    }
}

impl Plan {
    fn random(random: &mut Rng) -> Self {
        let most = pick(random, [10, 20, 60]);
        let least_idle = pick(random, [0, 0, 2, 10]).min(most);
        let begins = between(random, 20.0, 400.0);
        let warm_up_pace = pick(random, [0.0, 0.005, 0.1, SLOWLY]);
        let begins_slowly = warm_up_pace.total_cmp(&SLOWLY).is_eq();
        let never = (0.0, if begins_slowly { 100.0 } else { 0.0 });
        Self {
            order: pick(random, [Order::Lifo, Order::Lifo, Order::Fifo, Order::Random]),
            most,
            least_idle,
            warm_up: pick(random, [0, 0, 5, 10, 50]).min(most).max(least_idle),
            warm_up_pace,
            idle_timeout: pick(random, [30.0, 120.0, 600.0, 1e9]),
            lifetime: pick(random, [100.0, 300.0, 1800.0, 1e9]),
            jitter: pick(random, [0.0, 0.025, 0.2]),
            housekeeping: pick(random, [1.0, 10.0, 30.0]),
            keepalive: pick(random, [0.0, 0.0, 30.0, 90.0]),
            hold: pick(random, [0.1, 1.0, 6.0]),
            rate: pick(random, [0.0, 0.1, 1.0, 4.0]),
            burst_every: pick(random, [20.0, 45.0, 130.0, 1e9]),
            burst: pick(random, [5, 15, 30]),
            rest: pick(random, [never, never, (begins, begins + 150.0), (begins, 1e9)]),
            restart: one_in(random, 6)
                .then(|| (between(random, 60.0, 400.0), pick(random, [0.0, 5.0, 90.0]))),
            threads: pick(random, [1, 4, 16]),
            helper: one_in(random, 3),
            functions: pick(random, [1, 2, 5]),
            leak_one_in: 0,
            leaks_in_work: false,
            crest: 0.0,
        }
    }

    /// Used once, all of it, and then never again.
    fn resting(random: &mut Rng) -> Self {
        Self {
            most: 10,
            least_idle: 0,
            warm_up: 0,
            idle_timeout: 1e9,
            lifetime: 1e9,
            keepalive: 0.0,
            rate: 0.0,
            burst_every: pick(random, [5.0, 100.0]),
            burst: 16,
            rest: (pick(random, [6.0, 101.0]), 1e9),
            restart: None,
            ..Self::random(random)
        }
    }

    /// Comes in bursts whose height rises for a while and then begins anew.
    fn rising(random: &mut Rng) -> Self {
        Self {
            most: 60,
            idle_timeout: 1e9,
            rate: 0.0,
            burst_every: pick(random, [10.0, 20.0]),
            crest: pick(random, [150.0, 300.0]),
            rest: (0.0, 0.0),
            hold: 1.0,
            ..Self::random(random)
        }
    }
}

fn bound(random: &mut Rng) -> Vec<Bound> {
    let pace = pick(random, [0.01, 3.0, 20.0]);
    let count = pick(random, [3, 8, 20]);
    let wanders = one_in(random, 2);
    let mut starts = 1.0;
    let thread = |_| {
        starts += pace * between(random, 0.5, 1.5);
        Bound {
            starts,
            // What a task does not use for very long, no one can tell from what it has lost.
            period: match wanders {
                true => pick(random, [5.0, 25.0, 50.0, 70.0]),
                false => pick(random, [5.0, 25.0, 70.0, 200.0, 1e9]),
            },
            jitter: pick(random, [0.0, 0.1, 0.9]),
            wanders,
        }
    };
    (0..count).map(thread).collect()
}

pub(super) fn one_in(random: &mut Rng, many: u64) -> bool {
    random.u64(..many) == 0
}

fn between(random: &mut Rng, least: f64, most: f64) -> f64 {
    least + (most - least) * random.f64()
}

fn pick<T: Copy, const N: usize>(random: &mut Rng, from: [T; N]) -> T {
    from[random.usize(..N)]
}
