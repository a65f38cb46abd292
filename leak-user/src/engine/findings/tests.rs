use std::time::Duration;

use crate::engine::detect::testing::judge_again;
use crate::engine::detect::{Stacks, Thresholds};
use crate::engine::findings::*;
use crate::engine::testing::{APP, World, secs};
use crate::model::{Event, StackId, StackRole, TcpState, WireState};

const THRESHOLDS: Thresholds = Thresholds {
    silent_after: Duration::from_secs(60),
    interval: Duration::from_secs(10),
    limit: None,
    fail_on_leak: false,
};

fn turn(ledger: &mut Ledger, world: &World, at: f64) -> Vec<Change> {
    let verdicts = judge_again(world, &Stacks::new(), &THRESHOLDS, &ledger.accusations(), at);
    ledger.update(verdicts, &world.table, secs(at))
}

fn count(ledger: &Ledger, reason: Reason) -> (u64, u64) {
    let (_, count) = ledger.counts().find(|(other, _)| *other == reason).unwrap();
    (count.found, count.retracted)
}

/// Two connections idle in transaction since second 10.
fn two_in_transaction() -> World {
    let mut world = World::new();
    for number in [1, 2] {
        world.open(number, 1.0);
        world.request(number, 10.0, "pay", WireState::InTransaction);
    }
    world
}

#[test]
fn opens_keeps_and_retracts() {
    let mut world = two_in_transaction();
    let mut ledger = Ledger::default();
    assert!(turn(&mut ledger, &world, 19.0).is_empty());
    let changes = turn(&mut ledger, &world, 80.0);
    assert!(matches!(&changes[..], [Change::Opened(finding)] if finding.id.to_string() == "f1"));
    assert_eq!(ledger.open_of(Severity::Leak), 1);
    assert!(turn(&mut ledger, &world, 90.0).is_empty());
    world.request(1, 103.001, "pay", WireState::Idle);
    let changes = turn(&mut ledger, &world, 104.0);
    let [Change::Updated(finding, Some(sentence))] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(finding.verdict.connections, [ConnectionId(2)]);
    assert_eq!(sentence, "used again after 93 s");
    world.close(2, 130.0);
    let changes = turn(&mut ledger, &world, 130.002);
    let [Change::Retracted(finding, sentence)] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(sentence, "closed after 120 s");
    assert_eq!((finding.since, finding.retracted_at), (secs(80.0), Some(secs(130.002))));
    assert_eq!(count(&ledger, Reason::IdleInTransaction), (1, 1));
    assert_eq!(ledger.retracted().count(), 1);
    assert_eq!(ledger.open_of(Severity::Leak), 0);
}

#[test]
fn several_causes_are_told_with_counts() {
    let mut world = two_in_transaction();
    let mut ledger = Ledger::default();
    turn(&mut ledger, &world, 80.0);
    world.request(1, 90.0, "pay", WireState::Idle);
    world.close(2, 95.0);
    let changes = turn(&mut ledger, &world, 95.0);
    let [Change::Retracted(_, sentence)] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(sentence, "1 used again after 80 s, 1 closed after 84 s");
}

#[test]
fn a_stack_that_becomes_known_is_no_retraction() {
    let mut world = World::new();
    world.open(1, 1.0);
    world.request(1, 10.0, "", WireState::InTransaction);
    let mut ledger = Ledger::default();
    turn(&mut ledger, &world, 80.0);
    let request = world.table.get(ConnectionId(1)).unwrap().requests.count;
    let resolved = Event::StackResolved {
        id: ConnectionId(1),
        role: StackRole::LastUsedBy { request },
        stack: Some(StackId::from("pay")),
        goroutine: None,
    };
    world.apply(&resolved, secs(85.0));
    let changes = turn(&mut ledger, &world, 90.0);
    let [Change::Updated(finding, None)] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(finding.id.to_string(), "f1");
    assert_eq!(finding.verdict.stack, Some(StackId::from("pay")));
    assert_eq!(count(&ledger, Reason::IdleInTransaction), (1, 0));
}

#[test]
fn surer_evidence_takes_over() {
    let mut world = World::new();
    world.open(1, 1.0);
    let mut ledger = Ledger::default();
    turn(&mut ledger, &world, 80.0);
    assert_eq!(ledger.open_of(Severity::Leak), 0);
    for number in 2..20 {
        world.open(number, 80.0 + 10.0 * number as f64);
    }
    let changes = turn(&mut ledger, &world, 290.0);
    let told = changes.iter().any(|change| {
        matches!(change, Change::Retracted(_, sentence) if sentence == "now judged abandoned")
    });
    assert!(told, "{changes:?}");
    assert_eq!(ledger.open_of(Severity::Leak), 1);
    // It stands when the pool shrinks.
    for number in 4..20 {
        world.close(number, 291.0);
    }
    turn(&mut ledger, &world, 295.0);
    let abandoned: Vec<_> =
        ledger.open().into_iter().filter(|f| f.verdict.reason == Reason::Abandoned).collect();
    assert_eq!(abandoned[0].verdict.connections.len(), 3);
}

#[test]
fn the_retracted_are_bounded_and_light_ones_go_first() {
    let mut world = two_in_transaction();
    let mut ledger = Ledger::default();
    turn(&mut ledger, &world, 80.0);
    world.close(1, 81.0);
    world.close(2, 81.0);
    world.open(3, 81.0);
    for round in 0..700 {
        let at = 200.0 + 100.0 * f64::from(round);
        turn(&mut ledger, &world, at);
        world.request(3, at + 1.0, "query", WireState::Idle);
        turn(&mut ledger, &world, at + 2.0);
    }
    assert_eq!(count(&ledger, Reason::Silent), (700, 700));
    assert_eq!(ledger.retracted().count(), MAX_RETRACTED);
    assert_eq!(ledger.retracted().next().unwrap().verdict.reason, Reason::IdleInTransaction);
}

#[test]
fn a_reset_connection_is_not_called_closed() {
    let mut world = two_in_transaction();
    let mut ledger = Ledger::default();
    turn(&mut ledger, &world, 80.0);
    for number in [1, 2] {
        world.set(number, |usage| {
            usage.tcp_state = TcpState::Close;
            usage.state_changed_at = secs(81.0);
        });
    }
    assert!(turn(&mut ledger, &world, 90.0).is_empty());
    let changes = turn(&mut ledger, &world, 100.0);
    let told = changes.iter().any(|change| {
        matches!(change, Change::Retracted(_, sentence) if sentence.starts_with("ended by the server"))
    });
    assert!(told, "{changes:?}");
}

#[test]
fn a_leak_outlives_its_process() {
    let mut world = two_in_transaction();
    world.open(3, 1.0);
    let mut ledger = Ledger::default();
    turn(&mut ledger, &world, 80.0);
    let evidence = ledger.open()[0].evidence();
    let changes = ledger.process_exited(APP);
    let [Change::Updated(told, None)] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(told.evidence(), format!("{evidence}; the process then exited"));
    assert!(ledger.process_exited(APP).is_empty());
    // Its connections end one after the other.
    assert!(turn(&mut ledger, &world, 90.0).is_empty());
    world.close(1, 91.0);
    assert!(turn(&mut ledger, &world, 91.0).is_empty());
    world.close(2, 92.0);
    world.close(3, 92.0);
    let changes = turn(&mut ledger, &world, 100.0);
    let [Change::Retracted(light, _)] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(light.verdict.reason, Reason::Silent);
    assert_eq!(ledger.open_of(Severity::Leak), 1);
    let open = ledger.open();
    assert_eq!((open.len(), open[0].verdict.connections.len()), (1, 2));
    assert_eq!(open[0].evidence(), format!("{evidence}; the process then exited"));
    assert_eq!(count(&ledger, Reason::IdleInTransaction), (1, 0));
}

#[test]
fn leaks_of_exited_processes_are_bounded() {
    let mut ledger = Ledger::default();
    for round in 0..600 {
        let world = two_in_transaction();
        let accusations = ledger.accusations();
        let verdicts = judge_again(&world, &Stacks::new(), &THRESHOLDS, &accusations, 80.0);
        let process = ProcessKey { pid: round, start_ticks: 1 };
        let verdicts = verdicts.into_iter().map(|verdict| Verdict { process, ..verdict }).collect();
        ledger.update(verdicts, &world.table, secs(80.0));
        ledger.process_exited(process);
    }
    assert_eq!(ledger.open().len(), MAX_FROZEN);
    assert_eq!(ledger.open()[0].id.to_string(), "f89");
}

#[test]
fn what_is_closed_only_as_the_process_ends_was_not_mended() {
    let told = |closed_at: f64, exited_at: f64| {
        let mut world = two_in_transaction();
        let mut ledger = Ledger::default();
        turn(&mut ledger, &world, 80.0);
        world.close(1, closed_at);
        world.close(2, closed_at);
        turn(&mut ledger, &world, closed_at);
        ledger.note_teardown(&HashSet::new(), secs(closed_at));
        assert_eq!(ledger.torn_down(), 0, "it lives");
        ledger.note_teardown(&HashSet::from([APP]), secs(exited_at));
        ledger.torn_down()
    };
    assert_eq!(told(90.0, 91.0), 1);
    assert_eq!(told(90.0, 120.0), 0, "it went on without them");
    let mut world = two_in_transaction();
    let mut ledger = Ledger::default();
    turn(&mut ledger, &world, 80.0);
    for number in [1, 2] {
        world.request(number, 85.0, "pay", WireState::Idle);
    }
    turn(&mut ledger, &world, 86.0);
    ledger.note_teardown(&HashSet::from([APP]), secs(87.0));
    assert_eq!(ledger.torn_down(), 0, "they were used again");
}

#[test]
fn who_held_the_slots_of_a_full_server_is_not_forgotten() {
    let mut world = World::new();
    for number in [1, 2] {
        world.open(number, 1.0);
    }
    world.refuse(9, 5.0, "sorry, too many clients already");
    let mut ledger = Ledger::default();
    turn(&mut ledger, &world, 10.0);
    world.close(1, 12.0);
    turn(&mut ledger, &world, 20.0);
    let held = |ledger: &Ledger| ledger.open()[0].verdict.connections.len();
    assert_eq!(held(&ledger), 2, "as it was when it refused");
    world.refuse(10, 25.0, "sorry, too many clients already");
    turn(&mut ledger, &world, 30.0);
    assert_eq!(held(&ledger), 1);
}

#[test]
fn a_rule_hides_what_matches_all_it_asks_for() {
    let world = two_in_transaction();
    let accusations = Ledger::default().accusations();
    let verdicts = judge_again(&world, &Stacks::new(), &THRESHOLDS, &accusations, 80.0);
    let subject = |applications| Subject {
        verdict: &verdicts[0],
        comm: Some("orders"),
        function: Some("pay"),
        applications,
    };
    let glob = |text: &str| Some(text.parse().unwrap());
    let day = |day: u64| std::time::UNIX_EPOCH + Duration::from_secs(day * 86_400);
    let rule = Suppression {
        reason: Some(Reason::IdleInTransaction),
        comm: glob("ord*"),
        function: glob("pay"),
        application_name: glob("web"),
        why: "known".into(),
        until: Some(day(2)),
    };
    let web = || subject(vec![Some("web"), Some("web")]);
    assert!(rule.hides(&web(), day(1)));
    assert!(!rule.hides(&web(), day(2)), "it has ended");
    assert!(!rule.hides(&subject(vec![Some("web"), None]), day(1)), "one is not known");
    assert!(!rule.hides(&subject(Vec::new()), day(1)));
    let other = Suppression { reason: Some(Reason::Growing), ..rule.clone() };
    assert!(!other.hides(&web(), day(1)));
    let other = Suppression { function: glob("ship"), ..rule };
    assert!(!other.hides(&web(), day(1)));
}
