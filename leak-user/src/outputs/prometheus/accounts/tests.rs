use crate::engine::detect::Reason;
use crate::engine::testing::{APP, caller, endpoints, secs, usage};
use crate::model::Pod;
use crate::model::ProcessInfo;
use crate::model::{ConnectionId, Event};
use crate::outputs::prometheus::accounts::*;
use crate::outputs::testing::Run;

/// The only group with this name.
fn group(accounts: &Accounts, comm: &str) -> (LabelSet, Group) {
    let mut groups = accounts.balance().groups;
    groups.retain(|(set, _)| set.comm == comm);
    assert_eq!(groups.len(), 1, "{groups:#?}");
    groups.remove(0)
}

/// A new process opens a connection, and closes it if `closes`.
fn passes_by(run: &mut Run, number: u64, comm: &str, closes: bool, at: f64) {
    let process = ProcessKey { pid: u32::try_from(number).unwrap(), start_ticks: number };
    let mut caller = caller(process);
    comm.clone_into(&mut caller.comm);
    let id = ConnectionId(1_000_000 + number);
    let mut counters = usage(1, secs(at));
    counters.opener = caller.clone();
    let opened = Event::Opened { id, at: secs(at), caller, endpoints: endpoints(1) };
    run.world.apply(&opened, secs(at));
    if closes {
        let closed = Event::Closed { id, at: secs(at), usage: Box::new(counters) };
        run.world.apply(&closed, secs(at));
        run.exited.insert(process);
    }
}

#[test]
fn tells_what_is_so_and_what_was_counted() {
    let mut run = Run::new();
    run.turn(200.0);
    let mut accounts = Accounts::default();
    accounts.observe(&run.snapshot(200.0));
    accounts.observe(&run.snapshot(210.0));
    let (set, group) = group(&accounts, "shop\x1b[2J");
    assert_eq!(set.destination, "127.0.0.1:5432");
    assert_eq!((group.opened, group.closed, group.failures), (13, 0, 0), "counted once");
    assert_eq!(group.states, BTreeMap::from([("idle", 13)]));
    assert_eq!(group.silent, 13);
    // Connection 1 was last used at 10.101 s.
    assert_eq!(group.oldest.as_millis(), 199_899);
    assert_eq!(group.idle.buckets.iter().sum::<u64>(), 26, "one observation each time");
    // The pool opened no connection after it had lost the last one.
    let suspected = BTreeMap::from([((Reason::Abandoned, Severity::Leak), 11)]);
    assert_eq!(group.suspected, suspected);
}

#[test]
fn what_is_no_longer_so_stays_as_zero() {
    let mut run = Run::new();
    run.turn(200.0);
    let mut accounts = Accounts::default();
    accounts.observe(&run.snapshot(200.0));
    for id in 0..=12 {
        run.world.close(id, 201.0);
    }
    run.turn(210.0);
    accounts.observe(&run.snapshot(210.0));
    let (_, group) = group(&accounts, "shop\x1b[2J");
    assert_eq!(group.states, BTreeMap::from([("idle", 0)]));
    assert!(!group.suspected.is_empty() && group.suspected.values().all(|count| *count == 0));
    assert_eq!((group.opened, group.closed, group.silent), (13, 13, 0));
    assert!(group.oldest.is_zero());
}

#[test]
fn series_outlive_their_processes_for_a_while() {
    let mut run = Run::new();
    let mut accounts = Accounts::default();
    accounts.observe(&run.snapshot(130.0));
    for id in 0..=12 {
        run.world.close(id, 131.0);
    }
    run.exited.insert(APP);
    accounts.observe(&run.snapshot(140.0));
    let end = 140.0 + RETENTION.as_secs_f64();
    accounts.observe(&run.snapshot(end));
    assert_eq!(group(&accounts, "shop\x1b[2J").1.closed, 13);
    accounts.observe(&run.snapshot(end + 1.0));
    assert!(accounts.balance().groups.is_empty());
    accounts.observe(&run.snapshot(end + 11.0));
    assert!(accounts.balance().groups.is_empty(), "the dead do not come back");
}

#[test]
fn a_process_that_lives_keeps_its_series_without_connections() {
    let mut run = Run::new();
    for id in 0..=12 {
        run.world.close(id, 131.0);
    }
    let mut accounts = Accounts::default();
    for day in 1..=3 {
        accounts.observe(&run.snapshot(86_400.0 * f64::from(day)));
    }
    assert_eq!(group(&accounts, "shop\x1b[2J").1.opened, 13);
}

#[test]
fn too_many_names_are_counted_together_and_none_is_lost() {
    let mut run = Run::new();
    let mut accounts = Accounts::default();
    let many = MAX_GROUPS as u64 + 500;
    for number in 1..=many {
        passes_by(&mut run, 10_000 + number, &format!("job-{number}"), false, 130.0);
    }
    for _ in 0..2 {
        accounts.observe(&run.snapshot(140.0));
    }
    let balance = accounts.balance();
    assert_eq!(balance.groups.len(), MAX_GROUPS + 1);
    assert_eq!(balance.folded, many + 1 - MAX_GROUPS as u64, "each pair is counted once");
    let (_, other) = group(&accounts, OTHER);
    assert!(other.opened >= balance.folded, "{other:?}");
    let opened: u64 = balance.groups.iter().map(|(_, group)| group.opened).sum();
    assert_eq!(opened, many + 13);
    let open: u64 = balance.groups.iter().flat_map(|(_, group)| group.states.values()).sum();
    assert_eq!(open, many + 13);
}

#[test]
fn many_short_lived_processes_between_two_looks_are_all_counted() {
    let mut run = Run::new();
    let mut accounts = Accounts::default();
    let mut passed = 0;
    // More processes than the table remembers.
    for (round, count) in [3000, 20_000, 10, 9000].into_iter().enumerate() {
        for _ in 0..count {
            passed += 1;
            passes_by(&mut run, 10_000 + passed, "psql", true, 130.0 + round as f64);
        }
        accounts.observe(&run.snapshot(131.0 + round as f64));
        let (_, group) = group(&accounts, "psql");
        assert_eq!((group.opened, group.closed), (passed, passed));
    }
}

#[test]
fn a_pod_that_becomes_known_takes_the_gauges_with_it() {
    let mut run = Run::new();
    let known = run.processes.remove(&APP).unwrap();
    run.processes.insert(APP, ProcessInfo { pod: None, ..known.clone() });
    let mut accounts = Accounts::default();
    accounts.observe(&run.snapshot(130.0));
    assert!(!accounts.balance().kubernetes);
    run.processes.insert(APP, known);
    accounts.observe(&run.snapshot(140.0));
    let balance = accounts.balance();
    assert!(balance.kubernetes);
    let with = |wanted: bool| {
        let mut groups = balance.groups.iter();
        groups.find(|(set, _)| set.pod.is_some() == wanted).unwrap().clone()
    };
    let (set, group) = with(true);
    let Pod { namespace, name, container, .. } = set.pod.unwrap();
    assert_eq!([namespace, name, container], ["shop", "orders-7d9f", "app"]);
    assert_eq!(
        (group.opened, group.states["idle"]),
        (0, 13),
        "what was counted stays where it was"
    );
    let (_, group) = with(false);
    assert_eq!((group.opened, group.states["idle"]), (13, 0));
}
