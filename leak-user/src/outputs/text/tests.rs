use std::io;
use std::time::Duration;

use crate::engine::table::ConnectionTable;
use crate::engine::testing::{World, listed, server_lists, session};
use crate::model::server::{ServerAnswer, Session, SessionState};
use crate::model::{Destination, DestinationKind};
use crate::outputs::testing::Run;
use crate::outputs::text::journal::Journal;
use crate::outputs::text::*;

fn text(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn report(run: &Run, look: &Look) -> String {
    text(|out| write_report(out, look, &run.snapshot(200.0)))
}

fn columns(columns: usize) -> Look {
    Look { screen: Screen { columns: Some(columns), ..Screen::default() }, ..Look::default() }
}

#[test]
fn the_report_reads_well() {
    let mut run = Run::new();
    run.turn(200.0);
    let report = report(&run, &Look::default());
    assert_eq!(report, include_str!("report.txt"), "\n{report}");
}

#[test]
fn no_line_is_longer_than_the_screen_and_functions_are_whole() {
    let mut run = Run::new();
    run.turn(200.0);
    for width in [80, 100, 200] {
        let report = report(&run, &columns(width));
        let longest = report.lines().map(|line| line.chars().count()).max();
        assert!(longest <= Some(width), "{report}");
        assert!(report.contains("app::report"), "{report}");
    }
}

#[test]
fn all_frames_are_shown_when_asked_for() {
    let mut run = Run::new();
    run.turn(200.0);
    let folded = report(&run, &Look::default());
    assert!(folded.contains("(1 frame hidden: --frames all)"), "{folded}");
    let whole = report(&run, &Look { frames: Frames::All, ..Look::default() });
    assert!(whole.contains("\n      0  write\n"), "{whole}");
    assert!(!whole.contains("hidden"), "{whole}");
}

#[test]
fn few_of_what_is_only_information_are_listed() {
    let mut run = Run::new();
    run.health.skipped_runs = 0;
    for number in 20..30 {
        // Each to a server of its own.
        run.world.open(number, 1.0);
        run.world.set(number, |usage| usage.endpoints.remote.set_port(number as u16));
    }
    run.turn(200.0);
    let infos = |report: &str| report.lines().filter(|line| line.starts_with("INFO")).count();
    let all = report(&run, &Look { verbose: true, ..Look::default() });
    let short = report(&run, &Look::default());
    let hidden = infos(&all) - infos(&short);
    assert_eq!(infos(&short), 5, "{short}");
    assert!(short.contains(&format!("and {hidden} more; -v lists them")), "{short}");
    assert!(all.contains("cost: ") && !short.contains("cost: "), "{all}");
}

/// What a log gets at second `at`.
fn logged(journal: &mut Journal, run: &mut Run, at: f64) -> String {
    let changes = run.turn(at);
    let snapshot = run.snapshot(at);
    text(|out| journal.write(out, &Look::default(), &snapshot, &changes))
}

#[test]
fn in_a_log_each_change_is_a_line_and_a_stack_is_told_once() {
    let (mut run, mut journal) = (Run::new(), Journal::default());
    let first = logged(&mut journal, &mut run, 80.0);
    assert!(first.starts_with("00:01:20\nPID "), "{first}");
    let opened = logged(&mut journal, &mut run, 125.0);
    assert!(opened.contains("frame hidden"), "{opened}");
    assert!(!opened.contains("PID ") && !opened.contains("INFO"), "{opened}");
    let changed = logged(&mut journal, &mut run, 200.0);
    let line = changed.lines().find(|line| line.contains("→11:")).unwrap();
    assert!(line.starts_with("00:03:20 LEAK f"), "{changed}");
    assert!(!changed.contains("hidden"), "{changed}");
    assert_eq!(logged(&mut journal, &mut run, 201.0), "", "nothing has changed");
    for number in 0..=12 {
        run.world.close(number, 210.0);
    }
    let told = logged(&mut journal, &mut run, 210.0);
    assert!(told.contains("retracted f") && told.contains("closed after 99-199 s"), "{told}");
    assert_eq!(logged(&mut journal, &mut run, 220.0), "");
}

#[test]
fn a_terminal_is_redrawn_in_place_and_never_scrolls() {
    let mut run = Run::new();
    run.turn(200.0);
    for height in [5, 50] {
        let drawn = text(|out| live::draw(out, &Look::default(), &run.snapshot(200.0), height));
        let drawn = drawn.strip_prefix("\r\x1b[K\n\x1b[J\x1b[A").unwrap();
        let lines = drawn.matches('\n').count();
        assert!(lines < height && drawn.ends_with(&format!("\x1b[{lines}A")), "{drawn}");
    }
    let drawn = text(|out| live::draw(out, &Look::default(), &run.snapshot(200.0), 50));
    assert!(
        drawn.contains("LEAK 1") && drawn.contains("in app::report src/report.go:41"),
        "{drawn}"
    );
    assert!(drawn.contains("silent>60s"), "{drawn}");
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
    let told_of = report(&run, &Look::default());
    let told = "server db: PostgreSQL , 2 of 10 connections used, 3 reserved; 1 traced, 1 not\n  \
                1 of its sessions are hidden from this role; grant it pg_monitor\n  \
                cron\\u{1b}[2J: 1, 0 traced (1 active)\n  \
                shop: 1, 1 traced (1 idle)\n  \
                not owned by a traced process:\n    \
                1 cron\\u{1b}[2J as shop from 10.1.1.1 (1 active)\n";
    assert!(told_of.contains(told), "{told_of}");
    assert!(told_of.contains("Server db: 2 of 10 connections used."), "{told_of}");
    run.world.hear(201.0, ServerAnswer::Refused { why: "too many clients".into() });
    let report = text(|out| write_report(out, &Look::default(), &run.snapshot(202.0)));
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
    let wide = columns(300);
    let told = report(&run, &wide);
    assert!(told.contains("    3     0     0      0       0  3           2"), "{told}");
    let older = "OLDER    2 connections of shop\\u{1b}[2J (4242) opened before the trace and silent \
                 for 109-149 s: state and code unknown until used again; --pg-dsn tells";
    assert!(told.contains(older), "{told}");
    let verdict = "cannot tell: 2 silent connections older than the trace may be lost or at rest";
    assert!(told.contains(verdict) && !told.contains("no leak found"), "{told}");

    let sessions = [1, 2].map(|id| {
        let idle = session(id, 180.0, SessionState::IdleInTransaction);
        Session { transaction_age: Some(Duration::from_secs(150)), ..idle }
    });
    run.world.hear(200.0, server_lists(sessions.to_vec()));
    run.turn(200.0);
    let told = report(&run, &wide);
    assert!(!told.contains("older than the trace"), "{told}");
    let by_server = "  statement   SELECT ? (2x)\n              transaction open for 150 s\n";
    assert!(told.contains(by_server), "{told}");
    assert!(told.contains(" user=shop app=shop\n  backends    1001 1002\n"), "{told}");
}

#[test]
fn servers_have_the_names_that_kubernetes_gives_them() {
    let mut run = Run::new();
    let (kind, namespace) = (DestinationKind::Service, "db".to_owned());
    let name = Destination { kind, namespace, name: "post\u{1b}gres".to_owned() };
    run.destinations.insert("127.0.0.1".parse().unwrap(), name);
    run.turn(200.0);
    let report = report(&run, &columns(300));
    let named = " → 127.0.0.1:5432 (service db/post\\u{1b}gres)\n";
    assert!(report.contains(named), "{report}");
}

#[test]
fn colours_are_for_terminals() {
    let mut run = Run::new();
    run.turn(200.0);
    let plain = report(&run, &Look::default());
    let coloured = report(&run, &Look { paint: Paint::new(true), ..Look::default() });
    assert!(!plain.contains('\x1b'), "also not from the program's name");
    assert!(coloured.contains("\x1b[1m"));
}
