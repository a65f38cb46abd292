use crate::engine::detect::abandoned::*;
use crate::engine::detect::testing::{THRESHOLDS, find, judge};
use crate::engine::detect::{Stacks, Standing, evaluate};
use crate::engine::table::testing::{World, secs};
use crate::model::{ConnectionId, StackId, WireState};

fn query(world: &mut World, number: u64, at: f64, stack: &str) {
    world.request(number, at, stack, WireState::Idle);
}

fn no_leak(world: &World, at: f64) {
    let verdicts = judge(world, at);
    let leaks: Vec<_> = verdicts.iter().filter(|v| v.severity > Severity::Info).collect();
    assert!(leaks.is_empty(), "at {at} s: {leaks:?}");
}

/// A pool with one connection at work, and a leak of one every `pace` seconds.
fn leaking(leaks: u64, pace: f64) -> World {
    let mut world = World::new();
    world.open(0, 1.0);
    for number in 1..=leaks {
        let at = pace * number as f64;
        world.open(number, at);
        query(&mut world, number, at + 0.1, "leak");
        query(&mut world, 0, at + 0.2, "work");
    }
    world
}

#[test]
fn finds_a_staircase() {
    let world = leaking(12, 10.0);
    let verdicts = judge(&world, 121.0);
    let found = find(&verdicts, Reason::Abandoned);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].severity, Severity::Leak);
    assert_eq!(found[0].stack, Some(StackId::from("leak")));
    let ids: Vec<u64> = found[0].connections.iter().map(|id| id.0).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6]);
    assert_eq!(
        found[0].evidence,
        "6 connections idle and silent for 60-110 s (threshold 60 s), while the pool opened 11 more"
    );
}

#[test]
fn finds_a_fast_leak_and_one_with_short_thresholds() {
    let world = leaking(30, 1.0);
    assert_eq!(find(&judge(&world, 80.0), Reason::Abandoned).len(), 1);
    let world = leaking(8, 2.0);
    let mut thresholds = THRESHOLDS;
    thresholds.silent_after = Duration::from_secs(5);
    let verdicts =
        evaluate(&world.table, &Stacks::new(), &thresholds, &Standing::new(), secs(14.5));
    assert_eq!(find(&verdicts, Reason::Abandoned).len(), 1);
}

#[test]
fn the_last_leak_joins_when_nothing_of_the_pool_is_left() {
    let mut world = leaking(12, 10.0);
    // The working connection is idle, and so may the last leaked one be.
    let verdicts = judge(&world, 300.0);
    assert_eq!(find(&verdicts, Reason::Abandoned)[0].connections.len(), 11);
    let silent: Vec<_> =
        find(&verdicts, Reason::Silent).iter().flat_map(|v| v.connections.clone()).collect();
    assert_eq!(silent, [ConnectionId(12), ConnectionId(0)]);
    query(&mut world, 0, 200.0, "leak");
    let verdicts = judge(&world, 300.0);
    let found = find(&verdicts, Reason::Abandoned);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].severity, found[0].connections.len()), (Severity::Leak, 13));
}

#[test]
fn leaks_eat_the_slack_of_a_warm_pool_first() {
    let mut world = World::new();
    for number in 0..10 {
        world.open(number, 1.0 + 0.01 * number as f64);
    }
    for number in 0..10 {
        query(&mut world, number, 10.0 + 10.0 * number as f64, "leak");
    }
    no_leak(&world, 160.0);
    for number in 10..16 {
        world.open(number, 10.0 + 10.0 * number as f64);
        query(&mut world, number, 10.1 + 10.0 * number as f64, "leak");
    }
    let verdicts = judge(&world, 225.0);
    assert_eq!(find(&verdicts, Reason::Abandoned)[0].connections.len(), 16);
}

#[test]
fn what_was_found_stands_until_it_is_used_or_closed() {
    let mut world = leaking(12, 10.0);
    let found = judge(&world, 200.0);
    let found = find(&found, Reason::Abandoned);
    let standing: Standing = found[0]
        .connections
        .iter()
        .map(|&id| (id, world.table.get(id).unwrap().silent_since()))
        .collect();
    // A load that came and went leaves no growth to be seen.
    for number in [0].into_iter().chain(3..=12) {
        world.close(number, 201.0);
    }
    query(&mut world, 2, 205.0, "work");
    assert!(find(&judge(&world, 210.0), Reason::Abandoned).is_empty());
    let verdicts = evaluate(&world.table, &Stacks::new(), &THRESHOLDS, &standing, secs(210.0));
    let found = find(&verdicts, Reason::Abandoned);
    assert_eq!(found[0].connections, [ConnectionId(1)]);
    assert!(found[0].evidence.ends_with("while the pool opened others"));
}

#[test]
fn a_warm_up_of_fifty_is_quiet() {
    let mut world = World::new();
    for number in 0..50 {
        world.open(number, 1.0 + 0.1 * number as f64);
    }
    for at in [62.0, 70.0, 100.0, 1000.0] {
        no_leak(&world, at);
    }
}

#[test]
fn a_pool_that_reuses_is_quiet_whatever_its_bursts() {
    let mut world = World::new();
    let mut size = 0;
    // Bursts of rising height with long pauses: the idle ones are used first, the last one first.
    for (burst, height) in [5, 12, 8, 20, 20, 35].into_iter().enumerate() {
        let at = 100.0 * (burst as f64 + 1.0);
        no_leak(&world, at - 1.0);
        for number in (0..height).rev() {
            if number >= size {
                world.open(number, at + 0.01 * number as f64);
            }
            query(&mut world, number, at + 0.5 + 0.01 * number as f64, "query");
        }
        size = size.max(height);
        no_leak(&world, at + 5.0);
    }
    // Steady light work on the top of the stack.
    for second in 0..30 {
        query(&mut world, 34, 620.0 + 5.0 * f64::from(second), "query");
        no_leak(&world, 621.0 + 5.0 * f64::from(second));
    }
}

#[test]
fn rotation_and_refill_are_quiet() {
    let mut world = World::new();
    for number in 0..10 {
        world.open(number, 1.0);
    }
    for round in 0..60 {
        let at = 100.0 + 7.0 * round as f64;
        world.close(round, at);
        world.open(round + 10, at + 0.3);
        no_leak(&world, at + 5.0);
    }
}

#[test]
fn an_idle_pool_beside_a_growing_one_is_not_accused() {
    // Both look the same from outside. The idle one was used at different times during the growth.
    let mut world = World::new();
    for number in 0..8 {
        world.open(number, 1.0);
    }
    for second in 0..80_u64 {
        let at = 5.0 + second as f64;
        query(&mut world, second / 10, at, "idle");
        world.open(100 + second, at);
    }
    for second in 0..300 {
        for busy in 0..80 {
            if (second + busy) % 40 == 0 {
                query(&mut world, 100 + busy, 90.0 + second as f64, "busy");
            }
        }
    }
    for at in [150.0, 200.0, 380.0] {
        let verdicts = judge(&world, at);
        let leaks: Vec<_> = verdicts.iter().filter(|v| v.severity == Severity::Leak).collect();
        assert!(leaks.is_empty(), "at {at}: {leaks:?}");
    }
}

#[test]
fn a_listener_is_silent_by_nature() {
    let mut world = leaking(12, 10.0);
    for number in 1..=12 {
        world.set(number, |usage| usage.wire.listens = true);
    }
    assert!(find(&judge(&world, 200.0), Reason::Abandoned).is_empty());
}

#[test]
fn encrypted_connections_are_judged_by_their_last_bytes() {
    let mut world = leaking(12, 10.0);
    for number in 0..=12 {
        world.set(number, |usage| usage.wire.state = WireState::Unknown);
    }
    assert_eq!(find(&judge(&world, 130.0), Reason::Abandoned).len(), 1);
}

#[test]
fn without_stacks_only_growth_accuses() {
    let mut world = World::new();
    for number in 1..=12 {
        world.open(number, 10.0 * number as f64);
        query(&mut world, number, 10.1 * number as f64, "");
    }
    let verdicts = judge(&world, 300.0);
    let found = find(&verdicts, Reason::Abandoned);
    assert_eq!(found[0].stack, None);
    assert!((9..=11).contains(&found[0].connections.len()), "{found:?}");
}

/// A pool that opens 50 connections one by one on one thread, each needing some time, and no more.
#[test]
fn filling_up_slowly_is_quiet_whoever_looks() {
    let mut world = World::new();
    for number in 0..50 {
        world.open(number, 1.0 + 2.0 * number as f64);
        no_leak(&world, 2.0 + 2.0 * number as f64);
    }
    no_leak(&world, 300.0);
}

#[test]
fn connections_that_are_never_used_and_go_on_being_opened_are_lost() {
    let mut world = World::new();
    for number in 0..30 {
        world.open(number, 1.0 + 10.0 * number as f64);
    }
    let verdicts = judge(&world, 295.0);
    assert_eq!(find(&verdicts, Reason::Abandoned)[0].severity, Severity::Leak);
}

#[test]
fn a_burst_on_a_slow_machine_is_no_staircase() {
    let mut world = World::new();
    for number in 0..11 {
        let at = 1.0 + 1.2 * number as f64;
        world.open(number, at);
        query(&mut world, number, at + 0.5, "look");
    }
    // That so small a pool fell silent may look exhausted; it is not said to be.
    let verdicts = judge(&world, 100.0);
    assert!(verdicts.iter().all(|verdict| verdict.severity < Severity::Leak), "{verdicts:?}");
}

#[test]
fn a_cursor_that_was_read_in_part_is_not_busy() {
    let lost_in = |answered: bool| {
        let mut world = leaking(12, 10.0);
        for number in 1..=12 {
            if answered {
                world.set(number, |usage| usage.wire.state = WireState::Busy);
            } else {
                world.request(number, 10.0 * number as f64 + 0.15, "leak", WireState::Busy);
            }
        }
        judge(&world, 150.0)
    };
    let verdicts = lost_in(true);
    let found = find(&verdicts, Reason::Abandoned);
    assert_eq!(found[0].severity, Severity::Leak);
    assert!(found[0].evidence.contains("(8 in the middle of an answer)"), "{}", found[0].evidence);
    let verdicts = lost_in(false);
    assert!(find(&verdicts, Reason::Abandoned).is_empty(), "a long report: {verdicts:?}");
}

#[test]
fn a_copy_that_nobody_feeds_is_lost() {
    let mut world = leaking(12, 10.0);
    for number in 1..=12 {
        world.set(number, |usage| usage.wire.state = WireState::Copy);
    }
    let verdicts = judge(&world, 150.0);
    let evidence = &find(&verdicts, Reason::Abandoned)[0].evidence;
    assert!(evidence.contains("(8 with COPY left open)"), "{evidence}");
}

#[test]
fn a_long_pause_counts_for_the_code_before_it() {
    let found_at = |paused: &str, at: f64| {
        let mut world = leaking(12, 10.0);
        // One that lay idle for 50 s was used again, although the group had grown.
        world.open(100, 20.0);
        query(&mut world, 100, 21.0, paused);
        query(&mut world, 100, 71.0, paused);
        !find(&judge(&world, at), Reason::Abandoned).is_empty()
    };
    assert!(found_at("spare", 121.0), "another code's pause does not delay");
    assert!(!found_at("leak", 121.0), "so long may this code pause");
    assert!(found_at("leak", 170.0), "but not twice as long");
}
