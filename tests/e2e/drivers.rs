//! Where sessions stand by the word of their driver, under TLS and for connections that are older
//! than the trace; the programs' own word is the witness.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use harness::states::{Driver, states};
use harness::{Program, Report, Suite, Test, Trace, test};

pub(crate) fn tests() -> Vec<Test> {
    let drivers = [
        ("libpq", Driver::Libpq),
        ("psycopg2", Driver::Psycopg2),
        ("psycopg", Driver::Psycopg),
        ("ruby_pg", Driver::Ruby),
        ("php_pgsql", Driver::Php),
        ("go_pq", Driver::GoPq),
        ("go_pgx", Driver::GoPgx),
    ];
    let under_tls = |(name, driver): (&str, Driver)| {
        test(format!("{name}_under_tls"), move |suite| under_tls(suite, driver))
            .needs(driver.need())
    };
    let mut all: Vec<Test> = drivers.into_iter().map(under_tls).collect();
    all.push(test("agrees_with_the_wire", agrees_with_the_wire).needs(Driver::Libpq.need()));
    all
}

/// The states of a report's connections, by local port, all of which `source` told.
fn told(report: &Report, source: &str) -> Result<BTreeMap<u16, String>> {
    let told = report.connections.iter().map(|connection| {
        let wire = &connection.wire;
        ensure!(wire.source.as_deref() == Some(source), "{connection:#?}");
        let port = connection.local.rsplit(':').next().context("port")?;
        Ok((port.parse()?, wire.state.clone()))
    });
    told.collect()
}

/// Waits for an open finding that blames `count` connections to be in a transaction.
fn until_in_transaction(trace: &Trace, count: usize) -> Result<()> {
    let finding = trace.finding(|finding| {
        finding.reason == "idle_in_transaction"
            && finding.is_leak()
            && finding.connections.len() == count
    })?;
    ensure!(finding.evidence.contains("as the driver says"), "{}", finding.evidence);
    Ok(())
}

/// The sessions are older than the trace; then each of them is used and changes its state.
fn under_tls(suite: &Suite, driver: Driver) -> Result<()> {
    let mut program: Program = driver.start(suite, "require")?;
    program.ok("open")?;
    let trace = suite.trace().pid(program.pid()).start()?;
    until_in_transaction(&trace, 2)?;
    program.ok("turn")?;
    until_in_transaction(&trace, 1)?;
    // That the others have become idle has no event of its own.
    trace.let_intervals_pass(8);
    let expected = states(&mut program)?;
    let report = trace.stop()?;
    assert_eq!(told(&report, "driver")?, expected);
    ensure!(report.connections.iter().all(|connection| connection.wire.tls));
    let count = |state: &str| expected.values().filter(|one| *one == state).count();
    assert_eq!((count("in_transaction"), count("idle")), (1, 2), "{expected:?}");
    Ok(())
}

/// Without TLS the driver tells as long as nothing was seen of a connection, and then the wire.
fn agrees_with_the_wire(suite: &Suite) -> Result<()> {
    let mut program = Driver::Libpq.start(suite, "disable")?;
    program.ok("open")?;
    let expected = states(&mut program)?;
    let trace = suite.trace().pid(program.pid()).start()?;
    until_in_transaction(&trace, 2)?;
    assert_eq!(told(&trace.stop()?, "driver")?, expected);
    let trace = suite.trace().pid(program.pid()).start()?;
    program.ok("touch")?;
    let report = trace.stop()?;
    assert_eq!(told(&report, "wire")?, expected);
    assert_eq!(states(&mut program)?, expected);
    Ok(())
}
