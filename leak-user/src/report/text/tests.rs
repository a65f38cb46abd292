use super::*;
use crate::report::testing::Run;

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
    assert!(told.contains("4242) to 127.0.0.1:5432: closed after 99-199 s"), "{told}");
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
