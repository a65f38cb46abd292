//! Healthy programs that look like leaks are not reported.
//!
//! No event announces the absence of a finding, so each test lets the trace run for several times
//! the silence threshold.

use std::process::Command;

use anyhow::Result;
use harness::{Build, Need, Program, Running, Suite, Test, Trace, eventually, server, test};

/// Intervals for which a healthy program is watched: three times the silence threshold.
const WATCHED: u32 = 12;

pub(crate) fn tests() -> Vec<Test> {
    let all: Vec<Test> = vec![
        test("pool_at_rest", |suite| shop_that(suite, at_rest)),
        test("pool_of_one", |suite| shop_that(suite, of_one)),
        test("bursts", |suite| shop_that(suite, bursts)),
        test("warm_up_of_twenty", |suite| shop_that(suite, warm_up_of_twenty)),
        test("rotation", |suite| shop_that(suite, rotation)),
        test("listener", |suite| shop_that(suite, listener)),
        test("python_pool", |suite| watch(suite, suite.shop(Build::Python)?, steady))
            .needs(Need::Psycopg2),
        test("psql_at_its_prompt", psql_at_its_prompt),
        test("idle_pool_opened_before_tracing", idle_pool_opened_before_tracing),
    ];
    all.into_iter().map(|test| test.needs(Need::Libpq)).collect()
}

type Story = fn(&mut Program, &Trace) -> Result<()>;

fn shop_that(suite: &Suite, story: Story) -> Result<()> {
    watch(suite, suite.shop(Build::Debug)?, story)
}

/// Traces the order service while `story` runs; fails if any leak is found.
fn watch(suite: &Suite, mut shop: harness::Shop, story: Story) -> Result<()> {
    let trace = suite.trace().pid(shop.pid()).start()?;
    story(&mut shop, &trace)?;
    no_leak(trace)
}

fn no_leak(trace: Trace) -> Result<()> {
    let alarms: Vec<_> = trace
        .events()
        .iter()
        .filter(|event| event.kind == "finding")
        .filter_map(harness::Event::finding)
        .filter(harness::Finding::is_leak)
        .collect();
    assert!(alarms.is_empty(), "false alarm: {alarms:#?}");
    let report = trace.stop()?;
    assert!(report.leaks().is_empty(), "false alarm: {:#?}", report.findings);
    assert!(!report.connections.is_empty(), "the report has no connections");
    Ok(())
}

/// A pool that was used once and is idle since.
fn at_rest(shop: &mut Program, trace: &Trace) -> Result<()> {
    shop.ok("burst 5")?;
    trace.let_intervals_pass(WATCHED);
    Ok(())
}

/// Four spare connections stay idle while one does all the work.
fn of_one(shop: &mut Program, trace: &Trace) -> Result<()> {
    shop.ok("burst 5")?;
    steady(shop, trace)
}

fn steady(shop: &mut Program, trace: &Trace) -> Result<()> {
    for _ in 0..WATCHED {
        shop.ok("serve 3")?;
        trace.let_intervals_pass(1);
    }
    Ok(())
}

/// Peaks of different height: the pool keeps idle connections of one peak for the next.
fn bursts(shop: &mut Program, trace: &Trace) -> Result<()> {
    for size in [3, 8, 2, 10, 4, 10] {
        shop.ok(&format!("burst {size}"))?;
        trace.let_intervals_pass(2);
    }
    Ok(())
}

fn warm_up_of_twenty(shop: &mut Program, trace: &Trace) -> Result<()> {
    shop.ok("burst 20")?;
    steady(shop, trace)
}

/// The pool replaces old connections by new ones.
fn rotation(shop: &mut Program, trace: &Trace) -> Result<()> {
    shop.ok("burst 5")?;
    for _ in 0..WATCHED / 2 {
        trace.let_intervals_pass(2);
        shop.ok("rotate")?;
    }
    Ok(())
}

/// A connection waits for notifications while others come and go.
fn listener(shop: &mut Program, trace: &Trace) -> Result<()> {
    shop.ok("listen")?;
    trace.let_intervals_pass(2);
    shop.ok("burst 3")?;
    steady(shop, trace)
}

fn psql_at_its_prompt(suite: &Suite) -> Result<()> {
    let port = suite.port().to_string();
    let mut command = Command::new("psql");
    command.args(["-XAtq", "-h", "127.0.0.1", "-p", &port, "-U", server::USER, "-d", "postgres"]);
    let mut psql = Running::start(command.env("PGSSLMODE", "disable"))?;
    let trace = suite.trace().pid(psql.pid()).start()?;
    psql.say("SELECT 'answered';")?;
    eventually("psql answers", || Ok(psql.stdout.all().iter().any(|line| line == "answered")))?;
    trace.let_intervals_pass(WATCHED);
    no_leak(trace)
}

fn idle_pool_opened_before_tracing(suite: &Suite) -> Result<()> {
    let mut shop = suite.shop(Build::Debug)?;
    shop.ok("burst 5")?;
    let trace = suite.trace().pid(shop.pid()).start()?;
    steady(&mut shop, &trace)?;
    no_leak(trace)
}
