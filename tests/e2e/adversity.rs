//! Errors and hostile environments: the tool reports them in plain words and goes on, or ends as
//! documented.

mod forged_names;

use std::fs;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result};
use harness::process::{Signal, bound, start_silently};
use harness::readiness::Readiness;
use harness::suite::finish;
use harness::{FakeServer, Manner, Need, Shop, Suite, Test, bpf, eventually, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("no_such_process", no_such_process),
        test("process_dies_while_traced", process_dies_while_traced),
        test("process_becomes_a_zombie", process_becomes_a_zombie),
        test("no_privileges", no_privileges).needs(Need::Setpriv),
        test("doctor_without_privileges", doctor_without_privileges).needs(Need::Setpriv),
        test("reader_of_stdout_goes_away", reader_of_stdout_goes_away),
        test("reader_of_stdout_stops_reading", reader_of_stdout_stops_reading),
        test("stdout_is_full", stdout_is_full),
        test("two_instances_at_once", two_instances_at_once),
        test("binary_deleted_before_tracing", binary_deleted_before_tracing).needs(Need::Libpq),
        test("http_on_the_traced_port", |suite| {
            not_postgres(suite, Manner::Http, "raw GET / HTTP/1.1")
        }),
        test("noise_on_the_traced_port", |suite| not_postgres(suite, Manner::Noise, "noise 700")),
        test("a_single_byte", |suite| not_postgres(suite, Manner::Noise, "noise 1")),
        test("noise_at_a_real_server", noise_at_a_real_server),
        test("forged_names_stay_with_the_forger", forged_names::forged_names_stay_with_the_forger)
            .needs(Need::Strip),
        test("killed_tracer_leaves_no_programs", |suite| leaves_no_programs(suite, Signal::KILL)),
        test("ended_tracer_leaves_no_programs", |suite| leaves_no_programs(suite, Signal::INT)),
    ]
}

fn no_such_process(suite: &Suite) -> Result<()> {
    // One more than the largest possible PID.
    let limit: u32 = fs::read_to_string("/proc/sys/kernel/pid_max")?.trim().parse()?;
    let pid = (limit - 1).to_string();
    let output = suite.tool_says(&["--pid", &pid, "--duration", "5s"])?;
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(text.contains(&pid), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    Ok(())
}

fn process_dies_while_traced(suite: &Suite) -> Result<()> {
    let mut client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).start()?;
    let id = client.ok(&format!("connect 4 {}", suite.port()))?.number("cookie")?;
    client.ok("startup")?;
    client.kill()?;
    trace.event_about("connection_closed", id)?;

    // No process is left to trace, so the trace ends by itself with its report.
    let pid = client.pid();
    let outcome = trace.outcome()?;
    assert_eq!(outcome.status.code(), Some(0), "{}", outcome.stderr);
    let report = outcome.report()?;
    assert!(report.connections.is_empty(), "{:#?}", report.connections);
    assert_eq!(report.process(pid)?.closed_total, 1);
    Ok(())
}

/// A zombie, which has exited and whose parent has not waited for it, is not a process to trace.
fn process_becomes_a_zombie(suite: &Suite) -> Result<()> {
    let mut client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).start()?;
    client.tell("exit")?;
    let outcome = trace.outcome()?;
    assert_eq!(outcome.status.code(), Some(0), "{}", outcome.stderr);
    outcome.report()?;
    Ok(())
}

fn no_privileges(suite: &Suite) -> Result<()> {
    let output = finish(suite.tool_as_nobody()?.args(["--duration", "2s"]))?;
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(text.contains("sudo") || text.contains("root") || text.contains("CAP_"), "{text}");
    Ok(())
}

fn doctor_without_privileges(suite: &Suite) -> Result<()> {
    let output = finish(suite.tool_as_nobody()?.arg("doctor"))?;
    assert_eq!(output.status.code(), Some(4));
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("CAP_"), "the missing capabilities are not named: {text}");
    Ok(())
}

/// Starts a trace with this stdout, which the test does not read, and makes the trace print.
fn with_stdout(suite: &Suite, stdout: impl Into<Stdio>) -> Result<(Option<i32>, String)> {
    let mut client = suite.client()?;
    let builder = suite.trace().pid(client.pid()).option("--duration", "20s");
    let (mut tool, log) = (builder.into_command(), suite.directory()?.join("stderr"));
    let readiness = Readiness::of(&mut tool)?;
    let mut running = start_silently(&mut tool, stdout.into(), &log)?;
    readiness.wait(Instant::now() + bound(), || running.ensure_running())?;
    client.ok(&format!("connect 4 {}", suite.port()))?;
    let status = running.wait(bound())?;
    Ok((status.code(), fs::read_to_string(&log)?))
}

fn reader_of_stdout_goes_away(suite: &Suite) -> Result<()> {
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    // Like any program at the head of a pipe, the trace ends silently.
    let (_, text) = with_stdout(suite, OwnedFd::from(writer))?;
    assert!(!text.contains("panicked"), "{text}");
    Ok(())
}

/// The trace goes on, and a signal ends it; it waits for the reader until there is another one.
fn reader_of_stdout_stops_reading(suite: &Suite) -> Result<()> {
    let client = suite.client()?;
    let (_reader, mut writer) = std::io::pipe()?;
    // As much as a pipe holds.
    writer.write_all(&[b'\n'; 64 << 10])?;
    let (mut tool, log) = (
        suite.trace().pid(client.pid()).output("ndjson").into_command(),
        suite.directory()?.join("stderr"),
    );
    let readiness = Readiness::of(&mut tool)?;
    let mut running = start_silently(&mut tool, OwnedFd::from(writer).into(), &log)?;
    readiness.wait(Instant::now() + bound(), || running.ensure_running())?;
    running.signal(Signal::INT);
    readiness.wait_for_stop(Instant::now() + bound(), || running.ensure_running())?;
    running.signal(Signal::TERM);
    let status = running.wait(bound())?;
    assert_eq!(status.code(), Some(1), "{}", fs::read_to_string(&log)?);
    Ok(())
}

fn stdout_is_full(suite: &Suite) -> Result<()> {
    let full = fs::OpenOptions::new().write(true).open("/dev/full")?;
    let (code, text) = with_stdout(suite, full)?;
    assert_eq!(code, Some(1), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    Ok(())
}

fn two_instances_at_once(suite: &Suite) -> Result<()> {
    let mut client = suite.client()?;
    let first = suite.trace().pid(client.pid()).start()?;
    let second = suite.trace().pid(client.pid()).start()?;
    let id = client.ok(&format!("connect 4 {}", suite.port()))?.number("cookie")?;
    client.ok("startup")?;
    let reply = client.ok("query BEGIN")?;
    let early = first.stop()?;
    let late_reply = client.ok("query SELECT 1")?;
    let late = second.stop()?;

    for (report, reply) in [(early, reply), (late, late_reply)] {
        let connection = report.only_connection()?;
        assert_eq!(connection.id, id);
        assert_eq!(connection.bytes_sent, reply.number("sent")?);
        assert_eq!(connection.wire.state, "in_transaction");
        assert!(connection.opened_by.is_some());
    }
    Ok(())
}

fn binary_deleted_before_tracing(suite: &Suite) -> Result<()> {
    let path = suite.directory()?.join("shop");
    let mut shop = Shop::start_copy(suite, &path)?;
    fs::remove_file(&path)?;
    let trace = suite.trace().pid(shop.pid()).start()?;
    shop.ok("transaction")?;
    let finding = trace.finding(|finding| finding.reason == "idle_in_transaction")?;
    assert!(matches!(finding.function(), None | Some("refund_order")), "{finding:#?}");
    trace.stop()?;
    Ok(())
}

/// A server that is not PostgreSQL: the wire state stays unknown, and no names are invented.
fn not_postgres(suite: &Suite, manner: Manner, request: &str) -> Result<()> {
    let server = FakeServer::start(manner)?;
    let mut client = suite.client()?;
    let trace = suite.trace_port(server.port()).pid(client.pid()).start()?;
    client.ok(&format!("connect 4 {}", server.port()))?;
    client.ok(request)?;
    client.ok("read")?;
    client.ok(request)?;
    let reply = client.ok("read")?;

    let report = trace.stop()?;
    let connection = report.only_connection()?;
    assert_eq!(connection.bytes_sent, reply.number("sent")?);
    assert_eq!(connection.wire.state, "unknown");
    assert_eq!((&connection.wire.user, &connection.wire.database), (&None, &None));
    assert_eq!(connection.wire.backend_pid, None);
    Ok(())
}

fn noise_at_a_real_server(suite: &Suite) -> Result<()> {
    let mut client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).start()?;
    let id = client.ok(&format!("connect 4 {}", suite.port()))?.number("cookie")?;
    client.ok("noise 700")?;
    client.ok("close")?;
    trace.event_about("connection_closed", id)?;
    let report = trace.stop()?;
    assert!(report.leaks().is_empty(), "{:#?}", report.findings);
    Ok(())
}

fn leaves_no_programs(suite: &Suite, signal: Signal) -> Result<()> {
    let client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).start()?;
    let programs = bpf::programs_of(trace.pid())?;
    assert!(!programs.is_empty(), "the tracer has loaded no program");
    trace.signal(signal);
    let status = trace.outcome().context("the tracer ends")?.status;
    assert_eq!(status.success(), signal == Signal::INT);
    eventually("the kernel drops the programs", || bpf::none_exist(&programs))
}
