//! Every system call that moves payload is seen, its bytes are counted exactly, and the wire state
//! is right or `unknown`, but never wrong.

use anyhow::{Context as _, Result, ensure};
use harness::{FakeServer, Finding, Manner, Need, Program, Reply, Report, Suite, Test, test};

const SENDERS: [&str; 11] = [
    "write",
    "send",
    "sendto",
    "sendmsg",
    "sendmmsg",
    "writev",
    "send_more",
    "sendfile",
    "splice",
    "io_uring_send",
    "io_uring_write",
];

const RECEIVERS: [&str; 10] = [
    "read",
    "recv",
    "recvfrom",
    "peek",
    "recvmsg",
    "recvmmsg",
    "readv",
    "splice",
    "io_uring_recv",
    "io_uring_read",
];

/// The permitted wire states after `BEGIN`. The state may be unknown for calls whose payload is not
/// in a buffer; any other state would be wrong.
fn states_after_begin(flavour: &str) -> &'static [&'static str] {
    if ["sendfile", "splice"].contains(&flavour) || flavour.starts_with("io_uring") {
        &["in_transaction", "unknown"]
    } else {
        &["in_transaction"]
    }
}

pub(crate) fn tests() -> Vec<Test> {
    let mut all = Vec::new();
    for flavour in SENDERS {
        let name = format!("sent_by_{flavour}");
        all.push(needing_io_uring(flavour, test(name, move |s| sent_by(s, flavour))));
    }
    for flavour in RECEIVERS {
        let name = format!("received_by_{flavour}");
        all.push(needing_io_uring(flavour, test(name, move |s| received_by(s, flavour))));
    }
    for (name, bytes) in [("header_and_body_apart", 0), ("one_byte_at_a_time", 1), ("threes", 3)] {
        all.push(test(format!("received_in_pieces_{name}"), move |s| in_pieces(s, bytes)));
    }
    all.extend([
        test("states_of_the_dialogue", states_of_the_dialogue),
        test("startup_names_user_and_database", startup_names_user_and_database),
        test("startup_is_a_state_until_answered", startup_is_a_state_until_answered),
        test("many_results_in_one_answer", many_results_in_one_answer),
        test("many_arrivals_in_one_call", many_arrivals_in_one_call),
        test("pipelined_requests", pipelined_requests),
        test("request_in_parts", request_in_parts),
        test("listening_in_every_form", listening_in_every_form),
        test("refused_by_the_server", refused_by_the_server),
        test("an_exit_closes_what_was_left_open", an_exit_closes_what_was_left_open),
        test("a_transaction_is_as_old_as_its_beginning", a_transaction_is_as_old_as_its_beginning),
        test("cancelling_is_no_startup", cancelling_is_no_startup),
    ]);
    all
}

fn needing_io_uring(flavour: &str, test: Test) -> Test {
    if flavour.starts_with("io_uring") { test.needs(Need::IoUring) } else { test }
}

/// Compares the report with the client's own counts.
fn check(report: &Report, reply: &Reply, id: u64, states: &[&str]) -> Result<()> {
    let connection = report.connection(id)?;
    let state = connection.wire.state.as_str();
    assert!(states.contains(&state), "state {state}, expected {states:?}");
    assert_eq!(connection.bytes_sent, reply.number("sent")?, "bytes sent");
    assert_eq!(connection.bytes_received, reply.number("received")?, "bytes received");
    assert_eq!(report.events.lost, 0, "lost events");
    Ok(())
}

/// Opens a session with a traced client.
fn session(suite: &Suite, client: &mut Program) -> Result<u64> {
    let id = client.ok(&format!("connect 4 {}", suite.port()))?.number("cookie")?;
    client.ok("startup")?;
    Ok(id)
}

fn sent_by(suite: &Suite, flavour: &str) -> Result<()> {
    let mut client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).start()?;
    let id = session(suite, &mut client)?;
    client.ok(&format!("send-by {flavour}"))?;
    client.ok("query SELECT 1")?;
    let reply = client.ok("query BEGIN")?;

    let report = trace.stop()?;
    check(&report, &reply, id, states_after_begin(flavour))
}

fn received_by(suite: &Suite, flavour: &str) -> Result<()> {
    let mut client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).start()?;
    let id = session(suite, &mut client)?;
    client.ok(&format!("receive-by {flavour}"))?;
    client.ok("query SELECT 1")?;
    let reply = client.ok("query BEGIN")?;

    let report = trace.stop()?;
    check(&report, &reply, id, states_after_begin(flavour))
}

fn in_pieces(suite: &Suite, bytes: usize) -> Result<()> {
    let mut client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).start()?;
    client.ok(&format!("pieces-of {bytes}"))?;
    let id = session(suite, &mut client)?;
    client.ok("query SELECT 1")?;
    // Longer than the parts that the kernel programs only count while the socket holds more.
    let reply = client.ok("query BEGIN; SELECT repeat('x', 100) FROM generate_series(1, 60)")?;

    let report = trace.stop()?;
    check(&report, &reply, id, &["in_transaction"])?;
    let backend = report.connection(id)?.wire.backend_pid;
    assert!(
        backend.is_none() || backend == Some(reply.number("backend")?),
        "backend {backend:?} is wrong"
    );
    Ok(())
}

fn states_of_the_dialogue(suite: &Suite) -> Result<()> {
    let mut client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).start()?;

    let idle = session(suite, &mut client)?;
    client.ok("query SELECT 1")?;
    let finished = session(suite, &mut client)?;
    client.ok("query BEGIN")?;
    client.ok("query COMMIT")?;
    let in_transaction = session(suite, &mut client)?;
    client.ok("query BEGIN")?;
    let failed = session(suite, &mut client)?;
    client.ok("query BEGIN")?;
    client.ok("query SELECT 1/0")?;
    let copy = session(suite, &mut client)?;
    client.ok("query CREATE TEMP TABLE incoming (line text)")?;
    client.ok("query COPY incoming FROM STDIN")?;
    let prepared_copy = session(suite, &mut client)?;
    client.ok("query CREATE TEMP TABLE incoming (line text)")?;
    client.ok("prepare fill COPY incoming FROM STDIN")?;
    client.ok("execute fill")?;
    let copied = session(suite, &mut client)?;
    client.ok("query CREATE TEMP TABLE incoming (line text)")?;
    client.ok("query COPY incoming FROM STDIN")?;
    client.ok("copy-fail enough")?;
    let busy = session(suite, &mut client)?;
    client.ok("ask SELECT pg_sleep(60)")?;

    let report = trace.stop()?;
    let state = |id| report.connection(id).map(|connection| connection.wire.state.clone());
    assert_eq!(state(idle)?, "idle");
    assert_eq!(state(finished)?, "idle", "after COMMIT");
    assert_eq!(state(in_transaction)?, "in_transaction");
    assert_eq!(state(failed)?, "failed_transaction");
    assert_eq!(state(copy)?, "copy");
    assert_eq!(state(prepared_copy)?, "copy", "by a prepared statement");
    assert_eq!(state(copied)?, "idle", "after COPY");
    assert_eq!(state(busy)?, "busy");
    Ok(())
}

fn startup_names_user_and_database(suite: &Suite) -> Result<()> {
    let mut client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).start()?;
    client.ok("application an-application-with-a-name")?;
    let id = client.ok(&format!("connect 4 {}", suite.port()))?.number("cookie")?;
    let reply = client.ok("startup")?;

    let report = trace.stop()?;
    check(&report, &reply, id, &["idle"])?;
    let wire = &report.connection(id)?.wire;
    assert_eq!(wire.user.as_deref(), Some("postgres"));
    assert_eq!(wire.database.as_deref(), Some("postgres"));
    assert_eq!(wire.application_name.as_deref(), Some("an-application-with-a-name"));
    assert_eq!(wire.backend_pid, Some(reply.number("backend")?));
    assert!(!wire.tls);
    Ok(())
}

fn startup_is_a_state_until_answered(suite: &Suite) -> Result<()> {
    let server = FakeServer::start(Manner::Mute)?;
    let mut client = suite.client()?;
    let trace = suite.trace_port(server.port()).pid(client.pid()).start()?;
    let id = client.ok(&format!("connect 4 {}", server.port()))?.number("cookie")?;
    let reply = client.ok("greet")?;
    check(&trace.stop()?, &reply, id, &["startup"])
}

fn many_results_in_one_answer(suite: &Suite) -> Result<()> {
    let mut client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).start()?;
    let id = session(suite, &mut client)?;
    client.ok("query BEGIN; SELECT 1; SELECT 2; COMMIT; SELECT 3")?;
    // The answer is larger than any buffer, and its last message changes the state.
    let reply = client.ok("query BEGIN; SELECT repeat('x', 1000) FROM generate_series(1, 2000)")?;
    check(&trace.stop()?, &reply, id, &["in_transaction"])
}

/// A single call receives several segments, and only the last one holds the end of the answer.
fn many_arrivals_in_one_call(suite: &Suite) -> Result<()> {
    let mut client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).start()?;
    let id = session(suite, &mut client)?;
    client.ok("query SELECT 1")?;
    client.ok("receive-by recv_all")?;
    // More than the server collects before it sends: CommandComplete, RowDescription, DataRow,
    // CommandComplete, ReadyForQuery.
    client.ok(&format!("pieces-of {}", 11 + 32 + (11 + 40_000) + 14 + 6))?;
    let reply = client.ok("query BEGIN; SELECT repeat('x', 40000)")?;
    check(&trace.stop()?, &reply, id, &["in_transaction"])
}

fn pipelined_requests(suite: &Suite) -> Result<()> {
    let mut client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).start()?;
    let id = session(suite, &mut client)?;
    // Reads exactly the first answer.
    client.ok("pieces-of 0")?;
    client.ok("ask SELECT 1")?;
    client.ok("ask SELECT pg_sleep(60)")?;
    let reply = client.ok("answer")?;
    check(&trace.stop()?, &reply, id, &["busy", "unknown"])
}

/// The later parts of a request are not taken for new requests.
fn request_in_parts(suite: &Suite) -> Result<()> {
    let mut client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).start()?;
    let id = session(suite, &mut client)?;
    // The second part looks like a message: type, length, statement.
    let reply = client.ok("query-in-parts 16 SELECT 'abcQ1234LISTEN news'; BEGIN")?;

    let report = trace.stop()?;
    check(&report, &reply, id, &["in_transaction"])?;
    assert!(!report.connection(id)?.wire.listens, "part of a request was taken for LISTEN");
    Ok(())
}

fn listening_in_every_form(suite: &Suite) -> Result<()> {
    let mut client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).start()?;
    let mut sessions = Vec::new();
    for (listens, command) in [
        (true, "query LISTEN news"),
        (true, "query listen news"),
        (true, "query /* which? **/\t/**/ Listen news"),
        (true, "query   ; LISTEN \"news\""),
        (true, "prepare - LISTEN news"),
        (true, "prepare - /* quietly */ listen news"),
        (true, "prepare a_name_like_those_of_drivers_1 LISTEN news"),
        (false, "query SELECT 'LISTEN news'"),
        (false, "query -- LISTEN news"),
        (false, "query LISTENER"),
        (false, "prepare listen SELECT 1"),
        // The server refuses these.
        (false, "query LISTEN two words"),
        (false, "prepare - LISTEN two words"),
    ] {
        let id = session(suite, &mut client)?;
        client.ok(command)?;
        sessions.push((id, listens, command));
    }
    for end in ["UNLISTEN *", "discard all"] {
        let id = session(suite, &mut client)?;
        client.ok("query LISTEN news")?;
        client.ok(&format!("query {end}"))?;
        sessions.push((id, false, end));
    }

    let report = trace.stop()?;
    for (id, listens, command) in sessions {
        assert_eq!(report.connection(id)?.wire.listens, listens, "{command}");
    }
    Ok(())
}

fn refused_by_the_server(suite: &Suite) -> Result<()> {
    suite.server().sql("CREATE ROLE nobody LOGIN CONNECTION LIMIT 0")?;
    let mut client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).start()?;
    let held = session(suite, &mut client)?;
    client.ok("user nobody")?;
    for pieces in [65536, 0] {
        client.ok(&format!("connect 4 {}", suite.port()))?;
        client.ok("greet")?;
        client.ok(&format!("pieces-of {pieces}"))?;
        // Reads until the stream ends: no answer contains ReadyForQuery.
        ensure!(client.ok("answer").is_err(), "the server accepted the role");
        client.ok("close")?;
    }
    client.ok("user somebody")?;
    client.ok(&format!("connect 4 {}", suite.port()))?;
    client.ok("pieces-of 65536")?;
    client.ok("greet")?;
    ensure!(client.ok("answer").is_err(), "the server accepted the unknown role");

    let report = trace.stop()?;
    let refused: Vec<_> = report.process(client.pid())?.refused.clone().into_iter().collect();
    assert_eq!(refused, [("28000".to_owned(), 1), ("53300".to_owned(), 2)]);
    let told = report.findings.first().context("no finding")?;
    assert_eq!(told.reason, "refused");
    assert_eq!(told.server_messages, ["too many connections for role \"nobody\""]);
    assert_eq!(told.connections, [held]);
    assert_eq!((told.holders.len(), told.holders[0].count), (1, 1));
    Ok(())
}

fn an_exit_closes_what_was_left_open(suite: &Suite) -> Result<()> {
    let mut client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).flag("--fail-on-leak").start()?;
    session(suite, &mut client)?;
    client.ok("close")?;
    let left = session(suite, &mut client)?;
    client.kill()?;
    let outcome = trace.outcome()?;
    assert_eq!(outcome.status.code(), Some(3), "{}", outcome.stderr);
    let report = outcome.report()?;
    let leaks = report.leaks();
    assert_eq!(leaks.len(), 1, "{leaks:?}");
    assert_eq!(
        (leaks[0].reason.as_str(), &leaks[0].connections),
        ("unclosed_at_exit", &vec![left])
    );
    Ok(())
}

fn a_transaction_is_as_old_as_its_beginning(suite: &Suite) -> Result<()> {
    let mut client = suite.client()?;
    let trace = suite.trace().pid(client.pid()).start()?;
    session(suite, &mut client)?;
    let old = |finding: &Finding| {
        finding.reason == "idle_in_transaction" && finding.evidence.contains("goes on being used")
    };
    client.ok("query BEGIN")?;
    let found = trace.finding_while(old, || client.ok("query SELECT 1").map(drop))?;
    assert_eq!(found.severity, "info");
    // One that has begun anew is not old.
    client.ok("query ROLLBACK")?;
    client.ok("query BEGIN")?;
    trace.event("finding_retracted", |event| {
        event.finding().is_some_and(|finding| finding.connections == found.connections)
    })?;
    Ok(())
}

fn cancelling_is_no_startup(suite: &Suite) -> Result<()> {
    let server = FakeServer::start(Manner::Mute)?;
    let mut client = suite.client()?;
    let trace = suite.trace_port(server.port()).pid(client.pid()).start()?;
    let waits = client.ok(&format!("connect 4 {}", server.port()))?.number("cookie")?;
    client.ok("greet")?;
    let cancels = client.ok(&format!("connect 4 {}", server.port()))?.number("cookie")?;
    client.ok("cancel")?;
    let stuck = |finding: &Finding| finding.reason == "connect_stuck";
    let found = trace.finding(stuck)?;
    assert_eq!(found.connections, [waits]);

    let report = trace.stop()?;
    assert_eq!(report.connection(cancels)?.wire.user, None);
    let blamed = report.findings.iter().any(|finding| finding.connections.contains(&cancels));
    assert!(!blamed, "{:#?}", report.findings);
    Ok(())
}
