//! Stacks deeper than the initial copy, and resolvers that hang.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use harness::process::Signal;
use harness::{Need, Program, Running, Suite, Test, Trace, eventually, test, thread};

/// The number of calls that exceeds the initial copy, but not the largest one.
const DEEP: u32 = 110;
/// The number of calls that exceeds any copy.
const ABYSMAL: u32 = 450;

/// The number of deep requests: twice the necessary growths, because a busy resolver may learn from
/// a truncated stack only after the next request.
const REQUESTS: u32 = 5;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("copies_grow_for_c", |suite| {
            let path = suite.client_path()?;
            copies_grow(Program::start(&mut Command::new(path))?, suite, "connect 4", "do_deep")
        }),
        test("copies_grow_for_go", |suite| {
            let path = suite.go_client_path()?;
            copies_grow(Program::start(&mut Command::new(path))?, suite, "connect", "main.obey")
        })
        .needs(Need::Go),
        test("deeper_than_any_copy", deeper_than_any_copy),
        test("over_budget", over_budget),
        test("a_stuck_resolver_delays_no_event", a_stuck_resolver_delays_no_event),
        test("seen_while_the_resolver_is_stuck", seen_while_the_resolver_is_stuck),
        test("a_resolver_that_never_comes_back", a_resolver_that_never_comes_back),
    ]
}

/// Opens a connection, makes a request at this depth, and waits until its stack is resolved.
fn request_at_depth(
    trace: &Trace,
    client: &mut Program,
    connect: &str,
    depth: u32,
    port: u16,
) -> Result<()> {
    let known: Vec<_> = trace.events().iter().filter_map(|event| event.id()).collect();
    client.ok(&format!("{connect} {port}"))?;
    let is_new = |event: &harness::Event| event.id().is_some_and(|id| !known.contains(&id));
    let id = trace.event("connection_opened", is_new)?.id();
    if connect.ends_with('4') {
        client.ok("startup")?;
    }
    client.ok(&format!("deep {depth}"))?;
    trace.finding(|finding| id.is_some_and(|id| finding.connections.contains(&id)))?;
    Ok(())
}

/// The first deep stack is truncated. The tracer then copies more, so that a later stack is
/// complete.
fn copies_grow(mut client: Program, suite: &Suite, connect: &str, outer: &str) -> Result<()> {
    let trace = suite.trace().pid(client.pid()).start()?;
    for _ in 0..REQUESTS {
        request_at_depth(&trace, &mut client, connect, DEEP, suite.port())?;
    }
    let report = trace.stop()?;
    let mut connections = report.connections.clone();
    connections.sort_by_key(|connection| std::cmp::Reverse(connection.silent_ms));
    let used: Vec<_> = connections
        .iter()
        .map(|connection| report.stack(connection.last_used_by.as_ref()))
        .collect::<Result<_>>()?;
    let [first, .., last] = used.as_slice() else { anyhow::bail!("{:#?}", report.connections) };
    assert_eq!((first.quality.as_str(), reason(first)), ("truncated", Some("copy_too_short")));
    assert_eq!((last.quality.as_str(), reason(last)), ("complete", None));
    ensure!(last.frames.len() > DEEP as usize, "{:?}", last.functions());
    last.frame(outer)?;
    let quality = &report.stack_quality;
    assert_eq!(quality.none, 0, "{quality:?}");
    assert_eq!(quality.reasons.get("copy_too_short"), Some(&quality.truncated), "{quality:?}");
    Ok(())
}

fn reason(stack: &harness::report::Stack) -> Option<&str> {
    stack.quality_reason.as_deref()
}

fn deeper_than_any_copy(suite: &Suite) -> Result<()> {
    let mut client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).start()?;
    for _ in 0..REQUESTS {
        request_at_depth(&trace, &mut client, "connect 4", ABYSMAL, suite.port())?;
    }
    let report = trace.stop()?;
    let quality = &report.stack_quality;
    let count = |reason| quality.reasons.get(reason).copied().unwrap_or(0);
    let (short, limit) = (count("copy_too_short"), count("copy_limit"));
    assert!(short >= 1 && limit >= 1, "{quality:?}");
    assert_eq!((quality.truncated, quality.none), (short + limit, 0), "{quality:?}");
    Ok(())
}

/// Without a stack budget, no stacks are copied, and the report says so.
fn over_budget(suite: &Suite) -> Result<()> {
    let mut client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).option("--stack-budget", "0ms").start()?;
    client.ok(&format!("connect 4 {}", suite.port()))?;
    client.ok("startup")?;
    trace.finding(|finding| finding.is_silence())?;
    let report = trace.stop()?;
    let connection = report.only_connection()?;
    assert_eq!((&connection.opened_by, &connection.last_used_by), (&None, &None));
    let quality = &report.stack_quality;
    let reasons = ["over_budget", "not_recorded"].map(|reason| quality.reasons.get(reason));
    assert_eq!((quality.complete, reasons), (0, [Some(&1), Some(&1)]), "{quality:?}");
    Ok(())
}

/// The event loop still handles events, inventories and judgements.
fn a_stuck_resolver_delays_no_event(suite: &Suite) -> Result<()> {
    let mut client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).start()?;
    let stopped = thread::stop(trace.pid(), "resolver")?;
    for _ in 0..3 {
        let id = client.ok(&format!("connect 4 {}", suite.port()))?.number("cookie")?;
        client.ok("startup")?;
        trace.event_about("connection_opened", id)?;
        client.ok("close")?;
        trace.event_about("connection_closed", id)?;
    }
    client.ok(&format!("connect 4 {}", suite.port()))?;
    client.ok("startup")?;
    trace.finding(|finding| finding.is_silence())?;
    drop(stopped);
    let report = trace.stop()?;
    assert_eq!(report.stack_quality.none, 0, "{:?}", report.stack_quality);
    let connection = report.only_connection()?;
    report.stack(connection.opened_by.as_ref())?.frame("do_connect")?;
    Ok(())
}

/// The tracer opens the files of short-lived processes while the resolver is busy, so that their
/// stacks are complete later.
fn seen_while_the_resolver_is_stuck(suite: &Suite) -> Result<()> {
    const RUNS: usize = 5;
    let name = "comes-and-goes";
    let path = suite.directory()?.join(name);
    fs::copy(suite.client_path()?, &path)?;
    let trace = suite.trace().option("--comm", name).start()?;
    let stopped = thread::stop(trace.pid(), "resolver")?;
    for _ in 0..RUNS {
        let mut client = Running::start(&mut Command::new(&path))?;
        client.say(&format!("connect 4 {}\nstartup\nquery SELECT 1\nexit 0", suite.port()))?;
        client.wait()?;
    }
    let is_closed = |event: &harness::Event| event.kind == "connection_closed";
    eventually("all are closed", || {
        Ok(trace.events().iter().filter(|event| is_closed(event)).count() == RUNS)
    })?;
    drop(stopped);
    let quality = trace.stop()?.stack_quality;
    let gone = quality.reasons.get("process_gone").copied().unwrap_or(0);
    // One stack per connection, and a second one if a slow machine let the connection fall silent.
    assert!(quality.complete + gone >= RUNS as u64, "{quality:?}");
    assert_eq!((quality.truncated, quality.none), (0, gone), "{quality:?}");
    assert!(quality.complete > 0, "{quality:?}");
    Ok(())
}

/// The trace ends with its report, which lists the unresolved stack as missing.
fn a_resolver_that_never_comes_back(suite: &Suite) -> Result<()> {
    let mut client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).start()?;
    let stopped = thread::stop(trace.pid(), "resolver")?;
    client.ok(&format!("connect 4 {}", suite.port()))?;
    client.ok("startup")?;
    trace.signal(Signal::INT);
    trace.event("report", |_| true)?;
    // A process cannot end while one of its threads is stopped.
    drop(stopped);
    let report = trace.outcome()?.report()?;
    assert_eq!(report.only_connection()?.opened_by, None);
    let quality = &report.stack_quality;
    assert!(quality.reasons.get("not_in_time").is_some_and(|count| *count >= 1), "{quality:?}");
    Ok(())
}
