//! Connections without events: opened before the trace, events lost, other holders, other network
//! namespaces.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use harness::{FakeServer, Manner, Namespace, Need, Suite, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("opened_before_tracing", opened_before_tracing),
        test("used_after_opened_before_tracing", used_after_opened_before_tracing),
        test("inherited_by_a_child", inherited_by_a_child),
        test("passed_to_another_process", passed_to_another_process),
        test("another_network_namespace", another_network_namespace).needs(Need::Ip),
        test("opened_before_tracing_in_another_network_namespace", adopted_in_a_namespace)
            .needs(Need::Ip),
        test("all_events_lost", |suite| events_lost(suite, 1)),
        test("every_third_event_lost", |suite| events_lost(suite, 3)),
        test("closed_connection_with_all_events_lost", closed_with_all_events_lost),
    ]
}

fn inherited_by_a_child(suite: &Suite) -> Result<()> {
    let mut client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).flag("--children").start()?;
    let id = client.ok(&format!("connect 4 {}", suite.port()))?.number("cookie")?;
    client.ok("startup")?;
    let reply = client.ok("fork")?;
    trace.let_intervals_pass(2);

    let report = trace.stop()?;
    let connection = report.only_connection()?;
    assert_eq!(connection.id, id);
    assert_eq!(connection.bytes_sent, reply.number("sent")?, "including the child's bytes");
    assert_eq!(connection.bytes_received, reply.number("received")?);
    let mut holders = connection.held_by.clone();
    holders.sort_unstable();
    let mut expected = [client.pid(), u32::try_from(reply.number("child")?)?];
    expected.sort_unstable();
    assert_eq!(holders, expected);
    Ok(())
}

fn passed_to_another_process(suite: &Suite) -> Result<()> {
    let mut client = suite.client()?;
    let child = u32::try_from(client.ok("receiver")?.number("child")?)?;
    let trace = suite.trace().pid(client.pid()).pid(child).start()?;
    let id = client.ok(&format!("connect 4 {}", suite.port()))?.number("cookie")?;
    client.ok("startup")?;
    let reply = client.ok("pass")?;
    trace.let_intervals_pass(2);

    let report = trace.stop()?;
    let connection = report.only_connection()?;
    assert_eq!(connection.id, id);
    assert_eq!(connection.bytes_sent, reply.number("sent")?, "including the receiver's bytes");
    assert_eq!(connection.held_by, [child]);
    Ok(())
}

fn opened_before_tracing(suite: &Suite) -> Result<()> {
    let mut client = suite.client()?;
    let id = client.ok(&format!("connect 4 {}", suite.port()))?.number("cookie")?;
    client.ok("startup")?;
    let quiet_since = Instant::now();
    thread::sleep(Duration::from_millis(1500));
    let trace = suite.trace().pid(client.pid()).start()?;
    trace.let_intervals_pass(1);

    let report = trace.stop()?;
    let quiet = u64::try_from(quiet_since.elapsed().as_millis())?;
    let connection = report.only_connection()?;
    assert_eq!(connection.id, id);
    assert!(connection.opened_before_trace);
    assert_eq!(connection.opened_by, None);
    assert_eq!(connection.last_used_by, None);
    assert_eq!(connection.held_by, [client.pid()]);
    assert!(
        (1500..=quiet + 500).contains(&connection.silent_ms),
        "silent for {} ms, not for up to {quiet}",
        connection.silent_ms
    );
    Ok(())
}

fn used_after_opened_before_tracing(suite: &Suite) -> Result<()> {
    let mut client = suite.client()?;
    let id = client.ok(&format!("connect 4 {}", suite.port()))?.number("cookie")?;
    client.ok("startup")?;
    let trace = suite.trace().pid(client.pid()).start()?;
    client.ok("query BEGIN")?;
    // Long enough to count as silent, so that the tracer reads the stack of the latest request.
    let finding = trace.finding(|finding| finding.reason == "idle_in_transaction")?;
    assert_eq!(finding.connections, [id]);

    let report = trace.stop()?;
    let connection = report.connection(id)?;
    assert!(connection.opened_before_trace);
    assert_eq!(connection.opened_by, None);
    assert_eq!(connection.wire.state, "in_transaction");
    let stack = report.stack(connection.last_used_by.as_ref())?;
    assert!(stack.frames.iter().any(|frame| frame.function.as_deref() == Some("main")));
    Ok(())
}

fn another_network_namespace(suite: &Suite) -> Result<()> {
    let (namespace, server) = Namespace::create(|| FakeServer::start(Manner::Postgres))?;
    let mut client = suite.client_in(&namespace)?;
    let trace = suite.trace_port(server.port()).pid(client.pid()).start()?;
    let id = client.ok(&format!("connect 4 {}", server.port()))?.number("cookie")?;
    client.ok("startup")?;
    let reply = client.ok("query SELECT 1")?;
    // An inventory without the namespace would now consider the connection gone.
    trace.let_intervals_pass(3);

    let report = trace.stop()?;
    let connection = report.only_connection()?;
    assert_eq!(connection.id, id);
    assert_eq!(connection.bytes_sent, reply.number("sent")?);
    assert_eq!(connection.held_by, [client.pid()]);
    assert_eq!(connection.wire.state, "idle");
    Ok(())
}

fn adopted_in_a_namespace(suite: &Suite) -> Result<()> {
    let (namespace, server) = Namespace::create(|| FakeServer::start(Manner::Postgres))?;
    let mut client = suite.client_in(&namespace)?;
    let id = client.ok(&format!("connect 4 {}", server.port()))?.number("cookie")?;
    client.ok("startup")?;
    let trace = suite.trace_port(server.port()).pid(client.pid()).start()?;
    trace.let_intervals_pass(1);

    let report = trace.stop()?;
    let connection = report.only_connection()?;
    assert_eq!(connection.id, id);
    assert!(connection.opened_before_trace);
    assert_eq!(connection.held_by, [client.pid()]);
    Ok(())
}

fn events_lost(suite: &Suite, one_in: u32) -> Result<()> {
    let mut client = suite.client()?;
    let trace =
        suite.trace().pid(client.pid()).option("--drop-one-in", &one_in.to_string()).start()?;
    let mut open = Vec::new();
    for _ in 0..4 {
        client.ok(&format!("connect 4 {}", suite.port()))?;
        client.ok("startup")?;
        client.ok("close")?;
        open.push(client.ok(&format!("connect 4 {}", suite.port()))?.number("cookie")?);
        client.ok("startup")?;
    }
    trace.let_intervals_pass(3);

    let report = trace.stop()?;
    assert!(report.events.lost > 0, "no event was lost");
    assert!(report.events.reconciled > 0, "no connection was reconciled");
    let mut ids: Vec<_> = report.connections.iter().map(|connection| connection.id).collect();
    ids.sort_unstable();
    open.sort_unstable();
    assert_eq!(ids, open);
    for connection in &report.connections {
        assert_eq!(connection.held_by, [client.pid()]);
        assert_eq!(connection.tcp_state, "ESTABLISHED");
    }
    assert_eq!(report.process(client.pid())?.open, 4);
    Ok(())
}

/// A lost close event, which makes a naive tracer report a leak for ever.
fn closed_with_all_events_lost(suite: &Suite) -> Result<()> {
    let mut client = suite.client()?;
    client.ok(&format!("connect 4 {}", suite.port()))?;
    client.ok("startup")?;
    let trace = suite.trace().pid(client.pid()).option("--drop-one-in", "1").start()?;
    client.ok("query BEGIN")?;
    trace.let_intervals_pass(2);
    client.ok("close")?;
    trace.let_intervals_pass(3);
    let report = trace.stop()?;
    assert!(report.events.lost > 0, "no event was lost");
    assert_eq!(report.process(client.pid())?.open, 0);
    assert!(report.connections.is_empty(), "{:#?}", report.connections);
    assert!(report.leaks().is_empty(), "{:#?}", report.findings);
    Ok(())
}
