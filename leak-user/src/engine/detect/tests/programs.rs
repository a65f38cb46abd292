//! Simulates hundreds of programs, healthy and leaking ones, under changing load: what is called a
//! leak must have been lost, and what was lost must be found.
//!
//! Healthy are: pools that warm up with up to 50 connections, come in bursts, refill, rotate with
//! and without jitter, ping, rest, are replaced with and without overlap; two of them that look
//! like one; threads and tasks that have a connection each; two pools of which one rests and one
//! rises; with and without stacks. `PGSOCKTRACE_SIMULATIONS` runs another number of each kind.

mod plan;
mod pool;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;

use crate::engine::detect::testing::judge_again;
use crate::engine::detect::{Scope, Severity, Stacks, Thresholds};
use crate::engine::findings::Ledger;
use crate::engine::testing::{World, secs};
use crate::model::ConnectionId;
use plan::{Bound, Program};
use pool::{Pool, Shared};

/// How many programs of each kind are made up.
const PROGRAMS: u64 = 150;
/// Seconds that each runs.
const LASTS: u64 = 600;
/// Leaks after which it must be found.
const ENOUGH: usize = 5;

const THRESHOLDS: Thresholds = Thresholds {
    silent_after: Duration::from_secs(60),
    interval: Duration::from_secs(10),
    limit: None,
    fail_on_leak: false,
};

/// What became of a program.
struct Outcome {
    /// What was lost, and when.
    lost: BTreeMap<ConnectionId, f64>,
    /// What was ever part of a finding of severity leak.
    accused: BTreeSet<ConnectionId>,
    /// When the first such finding came.
    found_at: Option<f64>,
    /// A suspicion was told.
    suspected: bool,
    /// Its findings, to be shown.
    told: Vec<String>,
}

fn run(program: &Program, seed: u64) -> Outcome {
    let mut shared = Shared {
        world: World::new(),
        random: Rng::with_seed(seed ^ 0x5eed),
        next_id: 1,
        nameless: program.nameless,
        lost: BTreeMap::new(),
    };
    let mut pools: Vec<Pool> = (1..)
        .zip(&program.pools)
        .map(|(number, plan)| Pool::new(plan.clone(), number, &mut shared))
        .collect();
    let mut threads: Vec<(u64, f64)> =
        program.bound.iter().map(|bound| (0, bound.starts)).collect();
    let mut ledger = Ledger::default();
    let mut outcome = Outcome {
        lost: BTreeMap::new(),
        accused: BTreeSet::new(),
        found_at: None,
        suspected: false,
        told: Vec::new(),
    };
    for tick in 20..LASTS * 10 {
        let at = 0.1 * tick as f64;
        for pool in &mut pools {
            pool.step(at, tick, &mut shared);
        }
        for ((number, bound), thread) in (0..).zip(&program.bound).zip(&mut threads) {
            work_alone(bound, 5000 + number, thread, at, &mut shared);
        }
        if tick % 100 == 99 {
            judge(&mut outcome, &mut ledger, &shared.world, at + 0.09);
        }
    }
    outcome.lost = shared.lost;
    outcome
}

/// A thread uses its own connection when its time has come.
fn work_alone(bound: &Bound, tid: u32, (id, next): &mut (u64, f64), at: f64, shared: &mut Shared) {
    if at < *next {
        return;
    }
    if *id == 0 {
        *id = shared.open(at, tid);
    }
    let free = 6000 + shared.random.u32(..8);
    let tid = if bound.wanders { free } else { tid };
    shared.request(*id, at + 0.01, "work alone", tid);
    *next = at + bound.period * (1.0 + bound.jitter * (shared.random.f64() - 0.5));
}

fn judge(outcome: &mut Outcome, ledger: &mut Ledger, world: &World, at: f64) {
    let verdicts = judge_again(world, &Stacks::new(), &THRESHOLDS, &ledger.accusations(), at);
    for verdict in &verdicts {
        match verdict.severity {
            Severity::Leak => {
                // Growth is about a pool, not about its connections one by one.
                if verdict.scope() == Scope::Connections {
                    outcome.accused.extend(&verdict.connections);
                }
                outcome.found_at.get_or_insert(at);
                outcome.told.push(format!("{at}: {} {:?}", verdict.evidence, verdict.connections));
            }
            Severity::Suspect => {
                outcome.suspected = true;
                outcome.told.push(format!("{at}: suspect: {}", verdict.evidence));
            }
            Severity::Info => {}
        }
    }
    ledger.update(verdicts, &world.table, secs(at));
}

fn programs() -> u64 {
    let asked = std::env::var("PGSOCKTRACE_SIMULATIONS").ok();
    asked.and_then(|number| number.parse().ok()).unwrap_or(PROGRAMS)
}

#[test]
fn healthy_programs_are_never_called_leaking() {
    let (mut accused, mut suspected) = (Vec::new(), 0);
    for seed in 0..programs() {
        let program = Program::healthy(seed);
        let outcome = run(&program, seed);
        suspected += u64::from(outcome.suspected);
        if outcome.found_at.is_some() {
            let leak = outcome.told.iter().find(|told| !told.contains("suspect"));
            println!("{seed}: {program:?}\n{leak:#?}");
            accused.push(seed);
        }
    }
    println!("{} of {} accused, {suspected} suspected", accused.len(), programs());
    assert!(accused.is_empty(), "{accused:?}");
}

#[test]
fn leaks_are_found_and_nothing_else() {
    let (mut leaking, mut found, mut told, mut delays) = (0_u64, 0_u64, 0_u64, Vec::new());
    let (mut lost, mut accused, mut innocent) = (0, 0, 0);
    for seed in 0..programs() {
        let program = Program::leaking(seed);
        let outcome = run(&program, seed);
        let mut moments: Vec<f64> = outcome.lost.values().copied().collect();
        moments.sort_unstable_by(f64::total_cmp);
        // What was lost at the very end cannot be known.
        moments.retain(|&at| at < LASTS as f64 - 100.0);
        let wrong: Vec<_> =
            outcome.accused.iter().filter(|id| !outcome.lost.contains_key(id)).collect();
        innocent += wrong.len();
        if let Some(one) = wrong.first() {
            let name = format!("{one:?}");
            let told = outcome.told.iter().find(|told| told.contains(&name));
            println!("{seed}: {program:?} {} innocent, {told:?}", wrong.len());
        }
        if moments.len() < ENOUGH {
            continue;
        }
        leaking += 1;
        found += u64::from(outcome.found_at.is_some());
        told += u64::from(outcome.found_at.is_some() || outcome.suspected);
        lost += moments.len();
        accused += outcome.accused.len();
        if let Some(at) = outcome.found_at {
            delays.push(at - moments[2]);
        } else {
            println!("{seed}: not found: {program:?}");
        }
    }
    delays.sort_unstable_by(f64::total_cmp);
    let recall = found as f64 / leaking as f64;
    let precision = (accused - innocent) as f64 / accused.max(1) as f64;
    println!(
        "{found} of {leaking} found, {told} told; {accused} of {lost} connections, {innocent} innocent; \
         precision {precision:.4}; {:?} s after the third at the median",
        delays.get(delays.len() / 2)
    );
    assert!(precision > 0.98, "{precision}");
    // The rest are mostly pools at their cap that lose connections to code that mostly gives back:
    // from outside those look like pools that rest.
    assert!(recall > 0.6, "{recall}");
    assert!(told as f64 / leaking as f64 > 0.8, "{told}");
}
