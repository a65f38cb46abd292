use crate::engine::table::*;
use crate::engine::testing::{APP, World, caller, endpoints, listed, secs, usage};
use crate::model::{ListedSocket, StackId, StackRole, TcpState, WireState};

fn id(number: u64) -> ConnectionId {
    ConnectionId(number)
}

fn tally(table: &ConnectionTable) -> Tally {
    table.processes().next().unwrap().1.total
}

fn inventory(table: &mut ConnectionTable, began: f64, sockets: Vec<ListedSocket>, now: f64) {
    table.apply(
        &Event::Inventory { began: secs(began), sockets, complete: true },
        secs(now),
        &mut (),
    );
}

#[test]
fn follows_a_life() {
    let mut world = World::new();
    world.open(1, 1.0);
    world.open(2, 2.0);
    world.request(1, 5.0, "query", WireState::InTransaction);
    let connection = world.table.get(id(1)).unwrap();
    assert_eq!(connection.opened_at, Some(secs(1.0)));
    assert_eq!(connection.silent_since(), secs(5.001));
    assert_eq!(connection.callers.last_used_by, Some(StackId::from("query")));
    assert_eq!(connection.wire.state, WireState::InTransaction);
    assert_eq!(world.table.opened_since_silent(connection), 0);
    world.close(1, 9.0);
    assert!(world.table.get(id(1)).is_none());
    let tally = tally(&world.table);
    let wanted =
        Tally { open: 1, peak_open: 2, opened_total: 2, closed_total: 1, connect_failures: 0 };
    assert_eq!(tally, wanted);
    assert_eq!(world.table.losses(), Losses::default());
}

#[test]
fn counts_failed_connects() {
    let mut world = World::new();
    world.dial(1, 1.0);
    world.apply(&Event::Failed { id: id(1), at: secs(2.0), errno: Some(111) }, secs(2.0));
    let tally = tally(&world.table);
    assert_eq!((tally.open, tally.connect_failures, tally.closed_total), (0, 1, 1));
    // Counters read before the failure and told after it do not bring it back.
    let usage = Box::new(usage(1, secs(1.0)));
    world.apply(&Event::Used { id: id(1), usage }, secs(3.0));
    assert!(world.table.get(id(1)).is_none());
}

#[test]
fn a_stack_belongs_to_one_request() {
    let mut world = World::new();
    world.open(1, 1.0);
    world.request(1, 2.0, "guilty", WireState::Idle);
    world.set(1, |usage| usage.requests += 1);
    let connection = world.table.get(id(1)).unwrap();
    assert_eq!(connection.callers.last_used_by, None);
    let request = connection.requests.count;
    let late = |request| Event::StackResolved {
        id: id(1),
        role: StackRole::LastUsedBy { request },
        stack: Some(StackId::from("late")),
        goroutine: None,
    };
    world.apply(&late(request - 1), secs(3.0));
    assert_eq!(world.table.get(id(1)).unwrap().callers.last_used_by, None);
    let wanting = |world: &World| {
        world
            .table
            .wanting_stack(Duration::from_secs(5), Duration::ZERO, secs(60.0))
            .collect::<Vec<_>>()
    };
    assert_eq!(wanting(&world), [(id(1), request)]);
    world.apply(&late(request), secs(3.0));
    assert_eq!(world.table.get(id(1)).unwrap().callers.last_used_by, Some(StackId::from("late")));
    assert_eq!(wanting(&world), []);
}

#[test]
fn adopts_what_was_there_before() {
    let mut table = ConnectionTable::new(10);
    let at = 1000.0;
    inventory(&mut table, at, vec![listed(1, 900.0)], at);
    let connection = table.get(id(1)).unwrap();
    assert!(connection.opened_before_trace());
    assert_eq!(connection.process, APP);
    assert_eq!(connection.silent_for(secs(at)).as_secs(), 99);
    assert_eq!(connection.traffic.bytes_sent, 1000);
    assert!(connection.is_idle());
    assert_eq!(table.losses(), Losses::default());
    // Its clock ticks do not make it look used, and use under trace does.
    let mut jitter = listed(1, 900.0);
    jitter.last_receive = secs(900.2);
    inventory(&mut table, at + 10.0, vec![jitter], at + 10.0);
    assert_eq!(table.get(id(1)).unwrap().silent_since(), secs(900.001));
    let mut adopted = usage(1, secs(at + 12.0));
    adopted.adopted = true;
    adopted.last_send = Some(secs(at + 12.0));
    adopted.bytes_sent = 5;
    table.apply(&Event::Used { id: id(1), usage: Box::new(adopted) }, secs(at + 13.0), &mut ());
    let connection = table.get(id(1)).unwrap();
    assert_eq!(connection.silent_since(), secs(at + 12.0));
    assert_eq!(connection.traffic.bytes_sent, 1000);
    assert!(connection.opened_before_trace());
    assert_eq!((tally(&table).open, tally(&table).opened_total), (1, 0));
}

#[test]
fn inventories_mend_losses() {
    let mut world = World::new();
    world.open(1, 1.0);
    world.open(2, 2.0);
    world.open(3, 9.0);
    let mut half_closed = listed(1, 1.003);
    half_closed.tcp_state = TcpState::CloseWait;
    half_closed.unread_bytes = 7;
    // 2's end and 4's beginning were lost; 3 was opened after the dump began.
    inventory(&mut world.table, 8.0, vec![half_closed, listed(4, 5.0)], 10.0);
    let connection = world.table.get(id(1)).unwrap();
    assert_eq!(connection.tcp.state, TcpState::CloseWait);
    assert_eq!(
        (connection.traffic.unread_bytes, connection.traffic.unread_inventories),
        (Some(7), 1)
    );
    assert!(world.table.get(id(2)).is_none());
    assert!(world.table.get(id(3)).is_some());
    let missed = world.table.get(id(4)).unwrap();
    assert_eq!((missed.opened_at, missed.opened_before_trace()), (None, false));
    assert_eq!(missed.traffic.bytes_received, 2000);
    let losses = world.table.losses();
    assert_eq!((losses.added, losses.closed, losses.corrected), (1, 1, 1));
    // The lost end comes after all: it counts for nothing.
    let event = Event::Closed { id: id(2), at: secs(7.0), usage: Box::new(usage(2, secs(2.0))) };
    world.apply(&event, secs(11.0));
    assert_eq!(world.table.losses(), losses);
    assert_eq!(tally(&world.table).closed_total, 1);
}

#[test]
fn what_is_first_seen_in_use_after_an_inventory_is_no_older_than_the_trace() {
    let adopted = |world: &mut World, number: u64| {
        let mut usage = usage(number, secs(20.0));
        usage.adopted = true;
        world.apply(&Event::Used { id: id(number), usage: Box::new(usage) }, secs(21.0));
        world.inventory(30.0, vec![listed(number, 19.0)]);
        world.table.get(id(number)).cloned().unwrap()
    };
    let later = adopted(&mut World::new(), 1);
    assert_eq!((later.opened_at, later.opened_before_trace()), (None, false));
    assert_eq!((later.traffic.bytes_sent, later.traffic.bytes_received), (1000, 2000));
    let mut before_any = World::new();
    before_any.table = ConnectionTable::new(10);
    assert!(adopted(&mut before_any, 1).opened_before_trace());
}

#[test]
fn a_connection_with_counters_outlives_a_list_that_missed_it() {
    let mut world = World::new();
    world.open(1, 1.0);
    let complete = |world: &mut World, at: f64, sockets: Vec<ListedSocket>| {
        world.count(at + 0.5);
        inventory(&mut world.table, at, sockets, at + 0.6);
        world.table.get(id(1)).is_some()
    };
    assert!(complete(&mut world, 10.0, Vec::new()));
    assert!(complete(&mut world, 20.0, vec![listed(1, 1.0)]));
    assert!(complete(&mut world, 30.0, Vec::new()));
    // An incomplete list says nothing either way.
    world.inventory(35.0, Vec::new());
    assert!(!complete(&mut world, 40.0, Vec::new()), "its end was missed in the kernel");
    world.count(45.0);
    assert!(world.table.get(id(1)).is_none());
    assert_eq!(world.table.losses().closed, 1);
}

#[test]
fn counters_that_are_gone_prove_an_end_and_an_incomplete_list_does_not() {
    let mut world = World::new();
    world.open(1, 1.0);
    world.open(2, 1.0);
    inventory(&mut world.table, 5.0, vec![listed(1, 1.0), listed(2, 1.0), listed(3, 1.0)], 5.0);
    world.lose_end(2);
    world.inventory(50.0, Vec::new());
    let left: Vec<bool> = (1..=3).map(|number| world.table.get(id(number)).is_some()).collect();
    assert_eq!(left, [true, false, true]);
    world.inventory(60.0, Vec::new());
    assert!(world.table.get(id(3)).is_some(), "it never had counters");
    inventory(&mut world.table, 70.0, Vec::new(), 70.0);
    assert!(world.table.get(id(3)).is_none());
}

#[test]
fn orphans_and_the_dead_are_not_adopted() {
    let mut world = World::new();
    world.open(1, 1.0);
    world.close(1, 20.0);
    let mut orphan = listed(2, 3.0);
    orphan.held_by.clear();
    let mut closing = listed(3, 3.0);
    closing.tcp_state = TcpState::FinWait2;
    inventory(&mut world.table, 19.0, vec![listed(1, 2.0), orphan, closing], 21.0);
    assert_eq!(world.table.connections().count(), 0);
    assert_eq!(world.table.losses(), Losses::default());
}

#[test]
fn a_socket_can_connect_again() {
    let mut world = World::new();
    world.open(1, 1.0);
    world.open(1, 5.0);
    let tally = tally(&world.table);
    assert_eq!((tally.open, tally.opened_total, tally.closed_total), (1, 2, 1));
    assert_eq!(world.table.get(id(1)).unwrap().opened_at, Some(secs(5.0)));
}

#[test]
fn counters_may_come_before_the_opening() {
    let mut world = World::new();
    let used = Event::Used { id: id(1), usage: Box::new(usage(1, secs(3.0))) };
    world.apply(&used, secs(4.0));
    inventory(&mut world.table, 3.5, vec![listed(1, 3.0), listed(2, 3.0)], 4.0);
    for number in [1, 2] {
        let opened = Event::Opened {
            id: id(number),
            at: secs(3.0),
            caller: caller(APP),
            endpoints: endpoints(number),
        };
        world.apply(&opened, secs(4.0));
    }
    let tally = tally(&world.table);
    assert_eq!((tally.open, tally.opened_total, tally.closed_total), (2, 2, 0));
    assert_eq!(world.table.get(id(2)).unwrap().opened_at, Some(secs(3.0)));
    let pool = world.table.pools().next().unwrap();
    assert_eq!((pool.open_at(secs(2.9)), pool.open_at(secs(3.0))), (0, 2));
}

#[test]
fn refuses_when_full_and_evicts_nothing() {
    let mut table = ConnectionTable::new(1);
    inventory(&mut table, 0.0, vec![listed(1, 0.0), listed(2, 0.0)], 0.0);
    let opened =
        Event::Opened { id: id(3), at: secs(1.0), caller: caller(APP), endpoints: endpoints(3) };
    table.apply(&opened, secs(1.0), &mut ());
    let closed = Event::Closed { id: id(3), at: secs(2.0), usage: Box::new(usage(3, secs(1.0))) };
    table.apply(&closed, secs(2.0), &mut ());
    assert!(table.get(id(1)).is_some());
    let losses = table.losses();
    assert_eq!((losses.refused, losses.untracked, losses.reconciled()), (1, 1, 0));
}

#[test]
fn what_a_full_table_could_not_take_at_first_is_older_than_the_trace() {
    let mut table = ConnectionTable::new(1);
    inventory(&mut table, 0.0, vec![listed(1, 0.0), listed(2, 0.0)], 0.0);
    let closed = Event::Closed { id: id(1), at: secs(2.0), usage: Box::new(usage(1, secs(1.0))) };
    table.apply(&closed, secs(2.0), &mut ());
    inventory(&mut table, 10.0, vec![listed(2, 0.0)], 10.0);
    assert!(table.get(id(2)).unwrap().opened_before_trace());
    assert_eq!(table.pools().next().unwrap().growth_since(secs(5.0)), 0);
    assert_eq!(table.losses().added, 0);
}

#[test]
fn growth_is_measured_in_the_pool_of_the_startup_message() {
    let mut world = World::new();
    let name = |world: &mut World, number, user: &str| {
        let user = Some(user.to_owned());
        world.set(number, |usage| usage.wire.user = user);
    };
    for number in 1..=3 {
        world.open(number, 1.0);
        name(&mut world, number, "idle");
    }
    for number in 10..20 {
        world.open(number, number as f64);
    }
    // One known pool so far: who has not said its name is taken for a member.
    let connection = world.table.get(id(1)).unwrap();
    assert_eq!(world.table.opened_since_silent(connection), 10);
    for number in 10..20 {
        name(&mut world, number, "bursty");
    }
    let connection = world.table.get(id(1)).unwrap();
    assert_eq!(world.table.opened_since_silent(connection), 0);
    let other = world.table.get(id(12)).unwrap();
    assert_eq!(world.table.opened_since_silent(other), 7);
    assert_eq!(world.table.pools().filter(|pool| pool.open_now() > 0).count(), 2);
}

#[test]
fn rotation_leaves_no_growth() {
    let mut world = World::new();
    for number in 0..10 {
        world.open(number, 1.0);
    }
    for round in 0..200 {
        world.close(round + 1, 10.0 + round as f64);
        world.open(round + 10, 10.5 + round as f64);
    }
    let oldest = world.table.get(id(0)).unwrap();
    assert_eq!(world.table.opened_since_silent(oldest), 0);
    assert_eq!(tally(&world.table).peak_open, 10);
}
