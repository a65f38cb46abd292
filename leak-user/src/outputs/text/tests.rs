use std::time::Duration;

use crate::engine::table::ConnectionTable;
use crate::engine::testing::{World, listed, server_lists, session};
use crate::model::server::{ServerAnswer, Session, SessionState};
use crate::model::{Destination, DestinationKind};
use crate::outputs::testing::Run;
use crate::outputs::text::*;

fn text(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn the_report_reads_well() {
    let mut run = Run::new();
    run.turn(200.0);
    let report = text(|out| write_report(out, Paint::new(false), &run.snapshot(200.0)));
    assert_eq!(report, include_str!("report.txt"), "\n{report}");
}

#[test]
fn an_interval_tells_what_changed() {
    let mut run = Run::new();
    let changes = run.turn(80.0);
    let snapshot = run.snapshot(80.0);
    let early = text(|out| write_interval(out, Paint::new(false), &snapshot, &changes));
    assert!(early.starts_with("1970-01-01T00:01:20.000Z\nPID "), "{early}");
    let changes = run.turn(200.0);
    let snapshot = run.snapshot(200.0);
    let told = text(|out| write_interval(out, Paint::new(false), &snapshot, &changes));
    assert!(told.contains("abandoned: 11 connections of"), "{told}");
    assert!(!told.contains("INFO"), "{told}");
    for number in 0..=12 {
        run.world.close(number, 210.0);
    }
    let changes = run.turn(210.0);
    let snapshot = run.snapshot(210.0);
    let told = text(|out| write_interval(out, Paint::new(false), &snapshot, &changes));
    assert!(told.contains("no connections"), "{told}");
    assert!(told.contains(") to 127.0.0.1:5432: closed after 99-199 s"), "{told}");
}

#[test]
fn servers_tell_their_side() {
    let mut run = Run::new();
    let stranger = Session {
        client: Some("10.1.1.1:5".parse().unwrap()),
        application_name: Some("cron\x1b[2J".into()),
        hidden: true,
        ..session(99, 5.0, SessionState::Active)
    };
    let sessions = vec![session(1, 190.0, SessionState::Idle), stranger];
    run.world.hear(199.0, server_lists(sessions));
    let report = text(|out| write_report(out, Paint::new(false), &run.snapshot(200.0)));
    let told = "server db: PostgreSQL , 2 of 10 connections used, 3 reserved; 1 traced, 1 not\n  \
                1 of its sessions are hidden from this role; grant it pg_monitor\n  \
                cron\\u{1b}[2J: 1, 0 traced (1 active)\n  \
                shop: 1, 1 traced (1 idle)\n  \
                not owned by a traced process:\n    \
                1 cron\\u{1b}[2J as shop from 10.1.1.1 (1 active)\n";
    assert!(report.contains(told), "{report}");
    run.world.hear(201.0, ServerAnswer::Refused { why: "too many clients".into() });
    let report = text(|out| write_report(out, Paint::new(false), &run.snapshot(202.0)));
    assert!(
        report.contains("server db: all connections are taken: too many clients\n"),
        "{report}"
    );
}

#[test]
fn what_is_older_than_the_trace_is_unknown_until_a_server_tells() {
    let mut run = Run::new();
    run.world = World::new();
    // The first inventory is yet to come.
    run.world.table = ConnectionTable::new(10);
    run.world.inventory(200.0, vec![listed(1, 50.0), listed(2, 90.0), listed(3, 190.0)]);
    run.turn(200.0);
    let report = |run: &Run| text(|out| write_report(out, Paint::new(false), &run.snapshot(200.0)));
    let told = report(&run);
    assert!(told.contains("    3     0     0      0        3       2   149 s"), "{told}");
    assert!(told.contains("2 connections of shop\\u{1b}[2J (4242) are older than"), "{told}");
    assert!(told.contains("silent for 109-149 s: state and code are unknown"), "{told}");
    assert!(told.contains("--pg-dsn asks the server"), "{told}");
    let verdict = "cannot tell: nothing is known of 2 silent connections older than the trace";
    assert!(told.contains(verdict) && !told.contains("no leak found"), "{told}");

    let sessions = [1, 2].map(|id| {
        let idle = session(id, 180.0, SessionState::IdleInTransaction);
        Session { transaction_age: Some(Duration::from_secs(150)), ..idle }
    });
    run.world.hear(200.0, server_lists(sessions.to_vec()));
    run.turn(200.0);
    let told = report(&run);
    assert!(!told.contains("older than the trace"), "{told}");
    let by_server = "  user shop; application shop\n  last statement (2x): SELECT ?\n  \
                     transaction open for 150 s\n  backends 1001, 1002\n";
    assert!(told.contains(by_server), "{told}");
}

#[test]
fn servers_have_the_names_that_kubernetes_gives_them() {
    let mut run = Run::new();
    let (kind, namespace) = (DestinationKind::Service, "db".to_owned());
    let name = Destination { kind, namespace, name: "post\u{1b}gres".to_owned() };
    run.destinations.insert("127.0.0.1".parse().unwrap(), name);
    run.turn(200.0);
    let report = text(|out| write_report(out, Paint::new(false), &run.snapshot(200.0)));
    let named = "to 127.0.0.1:5432 (service db/post\\u{1b}gres)\n";
    assert!(report.contains(named), "{report}");
}

#[test]
fn colours_are_for_terminals() {
    let mut run = Run::new();
    run.turn(200.0);
    let plain = text(|out| write_report(out, Paint::new(false), &run.snapshot(200.0)));
    let coloured = text(|out| write_report(out, Paint::new(true), &run.snapshot(200.0)));
    assert!(!plain.contains('\x1b'), "also not from the program's name");
    assert!(coloured.contains("\x1b[1m"));
}
