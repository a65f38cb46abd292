//! Options, their environment variables, output formats and exit statuses.

mod ls;
mod run;

use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Output;

use anyhow::{Context, Result};
use harness::process::Signal;
use harness::suite::finish;
use harness::{Build, FakeServer, Manner, Need, Suite, Test, test};
use serde_json::Value;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("unknown_option", |suite| bad_usage(suite, &["--frobnicate"], "--frobnicate")),
        test("unknown_subcommand", |suite| bad_usage(suite, &["frobnicate"], "frobnicate")),
        test("bad_duration", |suite| bad_usage(suite, &["--interval", "5x"], "5x")),
        test("duration_without_unit", |suite| bad_usage(suite, &["--silent-after", "ten"], "ten")),
        test("bad_port", |suite| bad_usage(suite, &["--port", "70000"], "70000")),
        test("bad_pid", |suite| bad_usage(suite, &["--pid", "init"], "init")),
        test("bad_output", |suite| bad_usage(suite, &["--output", "xml"], "xml")),
        test("too_many_ports", |suite| {
            bad_usage(suite, &["-P", "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17"], "at most 16")
        }),
        test("endless_duration", |suite| {
            bad_usage(suite, &["--interval", "18446744073709551615s"], "at most 365d")
        }),
        test("bad_switch_variable", bad_switch_variable),
        test("bad_variable", bad_variable),
        test("help_and_version", help_and_version),
        test("doctor", doctor),
        test("schemas_are_the_documented_ones", schemas_are_the_documented_ones),
        test("ls", ls::connections),
        test("ls_finds_nothing", ls::nothing),
        test("ls_unprivileged", ls::unprivileged),
        test("run_passes_on", run::passes_on),
        test("run_fails_on_a_leak", run::fails_on_a_leak).needs(Need::Libpq),
        test("environment_twins", environment_twins),
        test("an_option_beats_its_variable", an_option_beats_its_variable),
        test("duration_ends_the_trace", duration_ends_the_trace),
        test("sigterm_ends_the_trace", sigterm_ends_the_trace),
        test("every_line_of_ndjson_is_an_event", every_line_of_ndjson_is_an_event),
        test("json_follows_its_schema", json_follows_its_schema).needs(Need::Libpq),
        test("text_names_the_leak", text_names_the_leak).needs(Need::Libpq),
        test("fail_on_leak", fail_on_leak).needs(Need::Libpq),
        test("fail_on_leak_without_a_leak", fail_on_leak_without_a_leak),
        test("fail_on_leak_too_short", fail_on_leak_when_nothing_could_be_found),
        test("several_ports", several_ports),
        test("other_ports_are_not_traced", other_ports_are_not_traced),
        test("other_processes_are_not_traced", other_processes_are_not_traced),
        test("without_a_process_everything_is_traced", everything),
        test("comm_selects_by_name", comm_selects_by_name),
        test("what_is_not_traced_is_told", what_is_not_traced_is_told),
        test("children_are_traced_when_asked", |suite| children(suite, true)),
        test("children_are_not_traced_unasked", |suite| children(suite, false)),
    ]
}

fn says(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).into_owned()
}

fn bad_usage(suite: &Suite, arguments: &[&str], named: &str) -> Result<()> {
    let output = suite.tool_says(arguments)?;
    assert_eq!(output.status.code(), Some(2), "{}", says(&output));
    assert!(output.stdout.is_empty(), "stdout carries only the report");
    assert!(String::from_utf8_lossy(&output.stderr).contains(named), "{}", says(&output));
    Ok(())
}

fn bad_variable(suite: &Suite) -> Result<()> {
    let output = finish(suite.tool().env("PGSOCKTRACE_INTERVAL", "5x"))?;
    assert_eq!(output.status.code(), Some(2), "{}", says(&output));
    Ok(())
}

fn bad_switch_variable(suite: &Suite) -> Result<()> {
    let output = finish(suite.tool().env("PGSOCKTRACE_CHILDREN", "maybe"))?;
    assert_eq!(output.status.code(), Some(2), "{}", says(&output));
    Ok(())
}

fn help_and_version(suite: &Suite) -> Result<()> {
    let help = suite.tool_says(&["--help"])?;
    assert!(help.status.success());
    for option in ["--pid", "--comm", "--port", "--interval", "--silent-after", "--fail-on-leak"] {
        assert!(says(&help).contains(option), "{option} in {}", says(&help));
    }
    let version = suite.tool_says(&["--version"])?;
    assert!(says(&version).starts_with("pgsocktrace "), "{}", says(&version));
    Ok(())
}

fn doctor(suite: &Suite) -> Result<()> {
    let output = suite.tool_says(&["doctor"])?;
    let text = says(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for purpose in ["connect", "close", "send", "receive"] {
        assert!(text.contains(purpose), "{purpose} in {text}");
    }
    Ok(())
}

fn environment_twins(suite: &Suite) -> Result<()> {
    let server = FakeServer::start(Manner::Postgres)?;
    let mut client = suite.client()?;
    let trace = suite
        .trace_bare()
        .variable("PGSOCKTRACE_PID", &client.pid().to_string())
        .variable("PGSOCKTRACE_PORT", &server.port().to_string())
        .variable("PGSOCKTRACE_INTERVAL", "300ms")
        .variable("PGSOCKTRACE_SILENT_AFTER", "1s")
        .start()?;
    let id = client.ok(&format!("connect 4 {}", server.port()))?.number("cookie")?;
    client.ok(&format!("connect 4 {}", suite.port()))?;
    trace.event_about("connection_opened", id)?;
    let report = trace.stop()?;
    assert_eq!(report.ports, [server.port()]);
    assert_eq!(report.only_connection()?.id, id);
    Ok(())
}

fn an_option_beats_its_variable(suite: &Suite) -> Result<()> {
    let trace = suite.trace().variable("PGSOCKTRACE_PORT", "1").start()?;
    assert_eq!(trace.stop()?.ports, [suite.port()]);
    Ok(())
}

fn schemas_are_the_documented_ones(suite: &Suite) -> Result<()> {
    let printed = |arguments: &[&str]| anyhow::Ok(suite.tool_says(arguments)?.stdout);
    assert!(printed(&["schema"])? == include_bytes!("../../docs/report.schema.json"));
    assert!(printed(&["schema", "--ndjson"])? == include_bytes!("../../docs/ndjson.schema.json"));
    Ok(())
}

fn duration_ends_the_trace(suite: &Suite) -> Result<()> {
    let client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).option("--duration", "1s").start()?;
    let outcome = trace.outcome()?;
    assert_eq!(outcome.status.code(), Some(0), "{}", outcome.stderr);
    assert!(outcome.report()?.connections.is_empty());
    Ok(())
}

fn sigterm_ends_the_trace(suite: &Suite) -> Result<()> {
    let client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).start()?;
    trace.signal(Signal::TERM);
    let outcome = trace.outcome()?;
    assert_eq!(outcome.status.code(), Some(0), "{}", outcome.stderr);
    outcome.report()?;
    Ok(())
}

fn every_line_of_ndjson_is_an_event(suite: &Suite) -> Result<()> {
    let mut client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).start()?;
    let id = client.ok(&format!("connect 4 {}", suite.port()))?.number("cookie")?;
    client.ok("startup")?;
    client.ok("close")?;
    trace.event_about("connection_closed", id)?;
    trace.signal(Signal::INT);

    let outcome = trace.outcome()?;
    let mut kinds = Vec::new();
    for line in outcome.stdout.lines() {
        let value: Value =
            serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
        assert!(value["time"].is_string(), "no time: {line}");
        if value["event"] == "interval" {
            assert!(value["connections"].is_u64(), "{line}");
            continue;
        }
        kinds.push(value["event"].as_str().context("no event")?.to_owned());
    }
    let expected = [
        "run_started",
        "connection_opened",
        "connection_established",
        "connection_closed",
        "report",
    ];
    assert_eq!(kinds, expected);
    Ok(())
}

fn json_follows_its_schema(suite: &Suite) -> Result<()> {
    let mut shop = suite.shop(Build::Debug)?;
    let trace = suite.trace().pid(shop.pid()).output("json").option("--duration", "10s").start()?;
    shop.ok("transaction")?;
    let outcome = trace.outcome()?;
    serde_json::from_str::<Value>(&outcome.stdout).context("one document")?;
    let read = outcome.report()?;
    assert_eq!(read.leaks().len(), 1, "{:#?}", read.findings);
    assert_eq!(read.leaks()[0].function(), Some("refund_order"));
    Ok(())
}

fn text_names_the_leak(suite: &Suite) -> Result<()> {
    let mut shop = suite.shop(Build::Debug)?;
    let trace = suite.trace().pid(shop.pid()).output("text").option("--duration", "10s").start()?;
    shop.ok("transaction")?;
    let outcome = trace.outcome()?;
    for word in ["refund_order", "shop.c:", "idle"] {
        assert!(outcome.stdout.contains(word), "{word} in {}", outcome.stdout);
    }
    assert!(!outcome.stdout.contains('\x1b'), "escape sequences in a pipe");
    Ok(())
}

fn fail_on_leak(suite: &Suite) -> Result<()> {
    let mut shop = suite.shop(Build::Debug)?;
    let trace = suite.trace().pid(shop.pid()).flag("--fail-on-leak").start()?;
    shop.ok("transaction")?;
    trace.finding(harness::Finding::is_leak)?;
    trace.signal(Signal::INT);
    let outcome = trace.outcome()?;
    assert_eq!(outcome.status.code(), Some(3), "{}", outcome.stderr);
    assert_eq!(outcome.report()?.leaks().len(), 1);
    Ok(())
}

fn fail_on_leak_without_a_leak(suite: &Suite) -> Result<()> {
    let mut client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).flag("--fail-on-leak").start()?;
    client.ok(&format!("connect 4 {}", suite.port()))?;
    client.ok("startup")?;
    trace.finding(harness::Finding::is_silence)?;
    assert!(trace.stop()?.leaks().is_empty());
    Ok(())
}

/// A trace too short to find any silence does not say that there is no leak.
fn fail_on_leak_when_nothing_could_be_found(suite: &Suite) -> Result<()> {
    let client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).flag("--fail-on-leak").start()?;
    trace.signal(Signal::INT);
    let outcome = trace.outcome()?;
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("no leak could be found"), "{}", outcome.stderr);
    Ok(())
}

fn several_ports(suite: &Suite) -> Result<()> {
    let server = FakeServer::start(Manner::Postgres)?;
    let mut client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).port(server.port()).start()?;
    let first = client.ok(&format!("connect 4 {}", suite.port()))?.number("cookie")?;
    let second = client.ok(&format!("connect 4 {}", server.port()))?.number("cookie")?;
    let report = trace.stop()?;
    assert_eq!(report.ports.len(), 2);
    assert!(report.ports.contains(&suite.port()) && report.ports.contains(&server.port()));
    report.connection(first)?;
    report.connection(second)?;
    Ok(())
}

fn other_ports_are_not_traced(suite: &Suite) -> Result<()> {
    let other = FakeServer::start(Manner::Postgres)?;
    let mut client = suite.client()?;
    client.ok(&format!("connect 4 {}", other.port()))?;
    let trace = suite.trace().pid(client.pid()).start()?;
    client.ok(&format!("connect 4 {}", other.port()))?;
    client.ok("startup")?;
    let traced = client.ok(&format!("connect 4 {}", suite.port()))?.number("cookie")?;
    trace.let_intervals_pass(2);
    assert_eq!(trace.stop()?.only_connection()?.id, traced);
    Ok(())
}

fn other_processes_are_not_traced(suite: &Suite) -> Result<()> {
    let (mut traced, mut other) = (suite.client()?, suite.client()?);
    other.ok(&format!("connect 4 {}", suite.port()))?;
    let trace = suite.trace().pid(traced.pid()).start()?;
    other.ok("startup")?;
    other.ok(&format!("connect 4 {}", suite.port()))?;
    let id = traced.ok(&format!("connect 4 {}", suite.port()))?.number("cookie")?;
    trace.let_intervals_pass(2);
    let report = trace.stop()?;
    assert_eq!(report.only_connection()?.id, id);
    assert!(report.processes.iter().all(|process| process.pid == traced.pid()));
    Ok(())
}

fn everything(suite: &Suite) -> Result<()> {
    let (mut first, mut second) = (suite.client()?, suite.client()?);
    let before = first.ok(&format!("connect 4 {}", suite.port()))?.number("cookie")?;
    let trace = suite.trace().start()?;
    let after = second.ok(&format!("connect 4 {}", suite.port()))?.number("cookie")?;
    trace.let_intervals_pass(1);
    let report = trace.stop()?;
    assert!(report.connection(before)?.opened_before_trace);
    assert_eq!(report.connection(after)?.pid, Some(second.pid()));
    Ok(())
}

fn comm_selects_by_name(suite: &Suite) -> Result<()> {
    let mut early = suite.client_named("magpie-1")?;
    let before = early.ok(&format!("connect 4 {}", suite.port()))?.number("cookie")?;
    let trace = suite.trace().option("--comm", "magpie-?").start()?;
    let (mut late, mut other) = (suite.client_named("magpie-2")?, suite.client_named("sparrow")?);
    other.ok(&format!("connect 4 {}", suite.port()))?;
    let after = late.ok(&format!("connect 4 {}", suite.port()))?.number("cookie")?;
    trace.let_intervals_pass(2);
    let report = trace.stop()?;
    let mut ids: Vec<_> = report.connections.iter().map(|connection| connection.id).collect();
    ids.sort_unstable();
    let mut expected = [before, after];
    expected.sort_unstable();
    assert_eq!(ids, expected);
    Ok(())
}

/// A name that nobody has, a variable that is none, a PID that is gone, and Unix sockets.
fn what_is_not_traced_is_told(suite: &Suite) -> Result<()> {
    let trace = suite.trace().option("--comm", "nosuchthing").start()?;
    trace.says("no process is called \"nosuchthing\" now")?;
    trace.stop()?;

    let path = suite.directory()?.join(".s.PGSQL.5432");
    let listener = UnixListener::bind(&path)?;
    let _client = UnixStream::connect(&path)?;
    let _server = listener.accept()?;
    let own = std::process::id();
    let trace = suite.trace().pid(own).pid(i32::MAX.unsigned_abs());
    let trace = trace.variable("PGSOCKTRACE_SILENTAFTER", "5s").start()?;
    trace.says("process 2147483647 cannot be traced")?;
    trace.says("did you mean PGSOCKTRACE_SILENT_AFTER?")?;
    trace.says("1 connection to the Unix socket")?;
    trace.stop()?;
    Ok(())
}

fn children(suite: &Suite, asked: bool) -> Result<()> {
    let mut client = suite.client()?;
    let trace = suite.trace().pid(client.pid());
    let trace = if asked { trace.flag("--children") } else { trace }.start()?;
    let child = client.ok(&format!("fork-connect {}", suite.port()))?.number("child")?;
    let own = client.ok(&format!("connect 4 {}", suite.port()))?.number("cookie")?;
    trace.let_intervals_pass(2);
    let report = trace.stop()?;
    if !asked {
        assert_eq!(report.only_connection()?.id, own);
        return Ok(());
    }
    assert_eq!(report.connections.len(), 2, "{:#?}", report.connections);
    assert!(
        report.connections.iter().any(|connection| connection.pid.map(u64::from) == Some(child))
    );
    Ok(())
}
