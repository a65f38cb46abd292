//! Real programs with real drivers: every leak is found and its culprit named, and no healthy
//! program is accused.
//!
//! This is a small part of the corpus; `cargo xtask bench detect` runs all of it.

use anyhow::{Result, ensure};
use harness::{Event, Finding, Member, Need, Suite, Test, test};

/// Intervals for which a healthy program is watched: four times the silence threshold.
const WATCHED: u32 = 16;

pub(crate) fn tests() -> Vec<Test> {
    let leaks = [
        (Member::GoPq, "not_returned", "customerReport"),
        (Member::GoPq, "rows", "exportInvoices"),
        (Member::GoPq, "pool_per_request", "monthlyStatement"),
        (Member::Libpq, "transaction", "reserve_stock"),
        (Member::Libpq, "connection_per_request", "sync_inventory"),
    ];
    let healthy = [
        (Member::GoPq, "steady"),
        (Member::GoPq, "listen"),
        (Member::GoPq, "rotation"),
        (Member::Libpq, "bursty"),
        (Member::Psycopg2, "prefork"),
        (Member::Psycopg2, "cancelled"),
    ];
    let mut all = Vec::new();
    for tls in ["disable", "require"] {
        for (member, pattern, culprit) in leaks {
            all.push(one(member, pattern, tls, move |suite| {
                is_found(suite, member, pattern, tls, culprit)
            }));
        }
        for (member, pattern) in healthy {
            all.push(one(member, pattern, tls, move |suite| {
                is_not_accused(suite, member, pattern, tls)
            }));
        }
    }
    all
}

fn one(
    member: Member,
    pattern: &str,
    tls: &str,
    body: impl Fn(&Suite) -> Result<()> + Send + 'static,
) -> Test {
    let tls = if tls == "require" { "_with_tls" } else { "" };
    let test = test(format!("{member:?}_{pattern}{tls}").to_lowercase(), body);
    match member {
        Member::GoPq => test.needs(Need::GoDrivers),
        Member::Libpq => test.needs(Need::Libpq),
        Member::Psycopg2 => test.needs(Need::Psycopg2),
    }
}

/// The first serious finding is about the lost connections and names their culprit.
fn is_found(suite: &Suite, member: Member, pattern: &str, tls: &str, culprit: &str) -> Result<()> {
    let mut worker = member.start(suite, pattern, tls)?;
    let trace = suite.trace().pid(worker.pid()).flag("--children").start()?;
    worker.begin()?;
    trace.finding(|finding| {
        let named = finding.function().is_some_and(|function| function.contains(culprit));
        finding.is_leak() && finding.count >= 2 && named
    })?;
    let lost = worker.lost();
    assert!(!lost.is_empty(), "the program reports no lost connections");
    let report = trace.stop()?;
    for finding in report.leaks() {
        let named = finding.function();
        assert!(named.is_none_or(|name| name.contains(culprit)), "{named:?} is innocent");
    }
    Ok(())
}

fn is_not_accused(suite: &Suite, member: Member, pattern: &str, tls: &str) -> Result<()> {
    let mut worker = member.start(suite, pattern, tls)?;
    let trace = suite.trace().pid(worker.pid()).flag("--children").start()?;
    worker.begin()?;
    trace.let_intervals_pass(WATCHED);
    let accusations: Vec<_> = trace
        .events()
        .iter()
        .filter(|event| event.kind == "finding")
        .filter_map(Event::finding)
        .filter(Finding::is_leak)
        .collect();
    assert!(accusations.is_empty(), "false alarm: {accusations:#?}");
    let report = trace.stop()?;
    ensure!(
        report.processes.iter().any(|process| process.open + process.opened_total > 0),
        "the report has no connections"
    );
    Ok(())
}
