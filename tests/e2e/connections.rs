//! Connections of every kind are seen, distinguished and followed, whichever process opens or holds
//! them.

use anyhow::{Context, Result};
use harness::{Build, FakeServer, Manner, Need, Shop, Suite, Test, eventually, server, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("ipv4", |suite| one_session(suite, "4", "127.0.0.1")),
        test("ipv6", |suite| one_session(suite, "6", "[::1]")).needs(Need::Ipv6),
        test("ipv4_mapped_into_ipv6", |suite| one_session(suite, "mapped", "127.0.0.1"))
            .needs(Need::Ipv6),
        test("non_blocking_connect", non_blocking_connect),
        test("refused_connect", refused_connect),
        test("refused_connects_leave_room", refused_connects_leave_room),
        test("connect_without_an_answer", connect_without_an_answer),
        test("handshake_without_an_end", handshake_without_an_end),
        test("opened_and_closed", opened_and_closed),
        test("duplicated_descriptor", duplicated_descriptor),
        test("never_used_after_connect", never_used_after_connect),
        test("process_that_exits_at_once", process_that_exits_at_once),
        test("encrypted", encrypted).needs(Need::Libpq),
        test("three_hundred", three_hundred),
        test("unread_bytes", unread_bytes),
    ]
}

fn one_session(suite: &Suite, family: &str, address: &str) -> Result<()> {
    let mut client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).start()?;
    let opened = client.ok(&format!("connect {family} {}", suite.port()))?;
    let id = opened.number("cookie")?;
    trace.event_about("connection_opened", id)?;
    trace.event_about("connection_established", id)?;
    let reply = client.ok("startup")?;

    let report = trace.stop()?;
    let connection = report.only_connection()?;
    assert_eq!(connection.id, id);
    assert_eq!(connection.pid, Some(client.pid()));
    assert_eq!(connection.tid, Some(client.pid()));
    assert_eq!(connection.held_by, [client.pid()]);
    assert_eq!(connection.local, format!("{address}:{}", opened.number("port")?));
    assert_eq!(connection.remote, format!("{address}:{}", suite.port()));
    assert_eq!(connection.tcp_state, "ESTABLISHED");
    assert_eq!(connection.bytes_sent, reply.number("sent")?);
    assert!(!connection.opened_before_trace);
    let opener = report.stack(connection.opened_by.as_ref())?;
    assert_eq!(opener.quality, "complete");
    let functions: Vec<_> = opener.frames.iter().filter_map(|f| f.function.as_deref()).collect();
    assert!(functions.contains(&"open_socket"), "{functions:?}");
    assert!(functions.contains(&"main"), "{functions:?}");
    Ok(())
}

fn non_blocking_connect(suite: &Suite) -> Result<()> {
    let mut client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).start()?;
    let id = client.ok(&format!("connect 4 {} nonblocking", suite.port()))?.number("cookie")?;
    trace.event_about("connection_established", id)?;
    let reply = client.ok("startup")?;

    let report = trace.stop()?;
    let connection = report.only_connection()?;
    assert_eq!(connection.id, id);
    // Failed reads before any data arrived are not payload.
    assert_eq!(connection.bytes_received, reply.number("received")?);
    assert_eq!(connection.wire.state, "idle");
    Ok(())
}

fn refused_connect(suite: &Suite) -> Result<()> {
    let port = server::free_port()?;
    let mut client = suite.client()?;
    let trace = suite.trace_port(port).pid(client.pid()).start()?;
    assert!(client.ok(&format!("connect 4 {port}")).is_err());
    assert!(client.ok(&format!("connect 4 {port} nonblocking")).is_err());
    let failures = || {
        let events = trace.events();
        events.iter().filter(|event| event.kind == "connection_failed").count()
    };
    eventually("both failures are reported", || Ok(failures() == 2))?;

    let report = trace.stop()?;
    assert!(report.connections.is_empty(), "{:#?}", report.connections);
    assert!(report.leaks().is_empty(), "{:#?}", report.findings);
    assert!(report.processes.iter().all(|process| process.open == 0), "{:?}", report.processes);
    Ok(())
}

/// A refused socket loses its port before it is destroyed. Its slot must still be freed.
fn refused_connects_leave_room(suite: &Suite) -> Result<()> {
    let closed = server::free_port()?;
    let mut client = suite.client()?;
    let trace = suite
        .trace()
        .pid(client.pid())
        .option("--port", &closed.to_string())
        .option("--max-connections", "8")
        .start()?;
    for _ in 0..20 {
        assert!(client.ok(&format!("connect 4 {closed}")).is_err());
    }
    let id = client.ok(&format!("connect 4 {}", suite.port()))?.number("cookie")?;
    client.ok("startup")?;

    let report = trace.stop()?;
    assert!(!report.connection(id)?.opened_before_trace);
    assert_eq!(report.events.lost, 0);
    Ok(())
}

fn connect_without_an_answer(suite: &Suite) -> Result<()> {
    let server = FakeServer::start(Manner::Mute)?;
    let mut client = suite.client()?;
    let trace = suite.trace_port(server.port()).pid(client.pid()).start()?;
    let id = client.ok(&format!("connect 4 {}", server.port()))?.number("cookie")?;
    client.ok("greet")?;
    let finding = trace.finding(|finding| finding.reason == "connect_stuck")?;
    assert_eq!(finding.connections, [id]);
    assert_ne!(finding.severity, "leak");
    trace.stop()?;
    Ok(())
}

fn handshake_without_an_end(suite: &Suite) -> Result<()> {
    let server = FakeServer::start(Manner::Full)?;
    let mut client = suite.client()?;
    let trace = suite.trace_port(server.port()).pid(client.pid()).start()?;
    let id = client.ok(&format!("connect 4 {} begin", server.port()))?.number("cookie")?;
    let finding = trace.finding(|finding| finding.reason == "connect_stuck")?;
    assert_eq!(finding.connections, [id]);
    assert_ne!(finding.severity, "leak");
    assert_eq!(trace.stop()?.connection(id)?.tcp_state, "SYN_SENT");
    Ok(())
}

fn opened_and_closed(suite: &Suite) -> Result<()> {
    let mut client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).start()?;
    for _ in 0..3 {
        let id = client.ok(&format!("connect 4 {}", suite.port()))?.number("cookie")?;
        client.ok("startup")?;
        client.ok("close")?;
        trace.event_about("connection_closed", id)?;
    }
    client.ok(&format!("connect 4 {}", suite.port()))?;

    let report = trace.stop()?;
    let process = report.process(client.pid())?;
    assert_eq!(process.opened_total, 4);
    assert_eq!(process.closed_total, 3);
    assert_eq!(process.open, 1);
    assert_eq!(process.peak_open, 1);
    assert_eq!(process.comm.as_deref(), Some("client"));
    Ok(())
}

fn duplicated_descriptor(suite: &Suite) -> Result<()> {
    let mut client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).start()?;
    let id = client.ok(&format!("connect 4 {}", suite.port()))?.number("cookie")?;
    client.ok("startup")?;
    client.ok("dup")?;
    let reply = client.ok("query SELECT 1")?;

    let report = trace.stop()?;
    let connection = report.only_connection()?;
    assert_eq!(connection.id, id);
    assert_eq!(connection.bytes_sent, reply.number("sent")?);
    assert_eq!(connection.held_by, [client.pid()]);
    Ok(())
}

fn never_used_after_connect(suite: &Suite) -> Result<()> {
    let mut client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).start()?;
    let id = client.ok(&format!("connect 4 {}", suite.port()))?.number("cookie")?;
    trace.event_about("connection_established", id)?;

    let report = trace.stop()?;
    let connection = report.only_connection()?;
    assert_eq!((connection.bytes_sent, connection.bytes_received), (0, 0));
    assert_eq!(connection.last_used_by, None);
    Ok(())
}

fn process_that_exits_at_once(suite: &Suite) -> Result<()> {
    let trace = suite.trace().option("--comm", "mayfly*").start()?;
    let mut client = suite.client_named("mayfly")?;
    let pid = client.pid();
    for command in [&format!("connect 4 {}", suite.port()), "startup", "exit"] {
        client.tell(command)?;
    }
    let id = client.answer()?.number("cookie")?;
    client.ended()?;
    let opened = trace.event_about("connection_opened", id)?;
    assert_eq!(opened.field("pid").and_then(serde_json::Value::as_u64), Some(u64::from(pid)));
    trace.event_about("connection_closed", id)?;

    let report = trace.stop()?;
    assert!(report.connections.is_empty(), "{:#?}", report.connections);
    let process = report.process(pid)?;
    assert_eq!(process.comm.as_deref(), Some("mayfly"));
    assert_eq!((process.opened_total, process.closed_total, process.open), (1, 1, 0));
    Ok(())
}

fn encrypted(suite: &Suite) -> Result<()> {
    let mut shop = Shop::start(suite, Build::Debug, &["sslmode=require"])?;
    let trace = suite.trace().pid(shop.pid()).start()?;
    shop.ok("serve 3")?;

    let report = trace.stop()?;
    let connection = report.only_connection()?;
    assert!(connection.wire.tls);
    assert!(matches!(connection.wire.source.as_deref(), None | Some("driver")), "{connection:#?}");
    assert!(connection.bytes_sent > 0 && connection.bytes_received > 0);
    // The names are encrypted: the tracer can show the user only if it has asked the server.
    assert!(matches!(connection.wire.user.as_deref(), None | Some(server::USER)));
    Ok(())
}

fn three_hundred(suite: &Suite) -> Result<()> {
    let mut client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).start()?;
    client.ok(&format!("many 300 {}", suite.port()))?;

    let report = trace.stop()?;
    assert_eq!(report.connections.len(), 300);
    assert_eq!(report.events.lost, 0);
    let process = report.process(client.pid())?;
    assert_eq!((process.open, process.opened_total, process.peak_open), (300, 300, 300));
    for connection in &report.connections {
        assert_eq!(connection.wire.state, "idle", "{connection:#?}");
        assert_eq!(connection.held_by, [client.pid()], "{connection:#?}");
    }
    Ok(())
}

fn unread_bytes(suite: &Suite) -> Result<()> {
    let mut client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).start()?;
    let id = client.ok(&format!("connect 4 {}", suite.port()))?.number("cookie")?;
    client.ok("startup")?;
    let sent = client.ok("ask SELECT 'a row that nobody reads'")?.number("sent")?;
    trace.let_intervals_pass(2);

    let report = trace.stop()?;
    let connection = report.connection(id).context("the connection")?;
    assert_eq!(connection.bytes_sent, sent);
    let unread = connection.unread_bytes;
    assert!(unread > Some(20), "{unread:?} bytes unread");
    Ok(())
}
