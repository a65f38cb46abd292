//! Matches sessions of pg_stat_activity with traced connections.

use std::time::Duration;

use anyhow::{Context, Result};
use harness::process::Signal;
use harness::report::{Report, Session};
use harness::suite::finish;
use harness::{
    Build, FakeServer, Manner, Need, Program, Server, Shop, Suite, Test, Trace, TraceBuilder,
    eventually, test,
};

/// The role that queries the server, and its password: a member of `pg_monitor` without other
/// privileges.
const ROLE: &str = "watch";
const PASSWORD: &str = "correct-horse";

pub(crate) fn tests() -> Vec<Test> {
    let with_libpq: Vec<Test> = vec![
        test("matched_by_pid", matched_by_pid),
        test("matched_by_port", matched_by_port),
        test("every_way_to_the_server", every_way_to_the_server),
        test("state_under_tls", state_under_tls),
        test("opened_in_a_transaction_before_tracing", in_a_transaction_before_tracing),
        test("unknown_without_the_server", unknown_without_the_server),
        test("sessions_of_nobody", sessions_of_nobody),
        test("nothing_granted", nothing_granted),
        test("server_restarted", server_restarted),
        test("server_full_before_tracing", server_full_before_tracing),
        test("server_full_while_traced", server_full_while_traced),
        test("exhausted_before_tracing", exhausted_before_tracing),
        test("idle_on_a_full_server", idle_on_a_full_server),
    ];
    let mut all: Vec<Test> = with_libpq.into_iter().map(|test| test.needs(Need::Libpq)).collect();
    all.extend([
        test("two_servers", two_servers),
        test("wrong_password", wrong_password),
        test("mute_server", mute_server),
        test("wrong_certificate", wrong_certificate),
        test("own_session_is_not_traced", own_session_is_not_traced),
        test("password_is_never_shown", password_is_never_shown),
    ]);
    all
}

/// Creates the role unless a concurrent test has created it.
fn make_role(server: &Server) -> Result<()> {
    server.sql(&format!(
        "DO $$ BEGIN CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}' IN ROLE pg_monitor; \
         EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
    ))?;
    Ok(())
}

/// The role's connection string.
fn dsn(server: &Server) -> String {
    format!("host=127.0.0.1 port={} user={ROLE} dbname=postgres", server.port())
}

/// A trace with a server join on the suite's server.
fn joined(suite: &Suite) -> Result<TraceBuilder> {
    make_role(suite.server())?;
    Ok(suite.trace().option("--pg-dsn", &dsn(suite.server())))
}

/// A private server for one test.
fn own_server(suite: &Suite) -> Result<Server> {
    let server = Server::start(&suite.directory()?)?;
    make_role(&server)?;
    Ok(server)
}

/// Waits until the server join has this status.
fn until_server(trace: &Trace, status: &str) -> Result<()> {
    trace.event("server", |event| {
        event.field("status").and_then(|status| status.as_str()) == Some(status)
    })?;
    Ok(())
}

/// The server's view of the only connection.
fn only_session(report: &Report) -> Result<&Session> {
    let connection = report.only_connection()?;
    connection.server.as_ref().with_context(|| format!("no session for {connection:#?}"))
}

fn matched_by_pid(suite: &Suite) -> Result<()> {
    let mut shop = suite.shop(Build::Debug)?;
    let trace = joined(suite)?.pid(shop.pid()).start()?;
    shop.ok("serve 3")?;

    let report = trace.stop()?;
    let session = only_session(&report)?;
    assert_eq!(Some(session.pid), report.only_connection()?.wire.backend_pid);
    assert_eq!(session.state.as_deref(), Some("idle"));
    assert_eq!(session.query.as_deref(), Some("SELECT generate_series(?, ?)"));
    assert_eq!(session.application_name.as_deref(), Some("shop"));
    assert_eq!(session.wait_event.as_deref(), Some("ClientRead"));
    let server = report.only_server()?;
    assert_eq!((server.status.as_str(), server.traced), ("answering", Some(1)));
    assert_eq!((server.max_connections, server.hidden), (Some(700), 0));
    assert!(server.used >= Some(1));
    Ok(())
}

/// A connection older than the trace: the tracer has not seen the backend's PID on the wire.
fn matched_by_port(suite: &Suite) -> Result<()> {
    let mut shop = suite.shop(Build::Debug)?;
    shop.ok("serve 1")?;
    let trace = joined(suite)?.pid(shop.pid()).start()?;
    let report = trace.stop()?;
    let connection = report.only_connection()?;
    assert!(connection.opened_before_trace && connection.wire.backend_pid.is_none());
    let port = connection.local.rsplit(':').next().context("port")?;
    let pid = suite
        .server()
        .sql(&format!("SELECT pid FROM pg_stat_activity WHERE client_port = {port}"))?;
    assert_eq!(only_session(&report)?.pid.to_string(), pid);
    Ok(())
}

/// The connection is matched whether the join uses the Unix socket, TCP or TLS.
fn every_way_to_the_server(suite: &Suite) -> Result<()> {
    let server = suite.server();
    make_role(server)?;
    let (port, data) = (server.port(), server.data().display().to_string());
    let certificate = format!("{data}/server.crt");
    let mut shop = suite.shop(Build::Debug)?;
    shop.ok("serve 1")?;
    for (ask, encrypted) in [
        (format!("host={data} port={port} user={ROLE} dbname=postgres"), false),
        (format!("postgres://{ROLE}@[::1]:{port}/postgres?sslmode=disable"), false),
        (format!("postgres://{ROLE}@localhost:{port}/postgres?sslmode=require"), true),
        (
            format!(
                "postgres://{ROLE}@localhost:{port}/postgres?sslmode=verify-ca&sslrootcert={certificate}"
            ),
            true,
        ),
    ] {
        let name = format!("way {encrypted} {}", ask.len());
        let with_name = if ask.starts_with("host") {
            format!("{ask} application_name='{name}'")
        } else {
            format!("{ask}&application_name={}", name.replace(' ', "%20"))
        };
        let trace = suite.trace().pid(shop.pid()).option("--pg-dsn", &with_name).start()?;
        until_server(&trace, "answering").with_context(|| ask.clone())?;
        let ssl = server.sql(&format!(
            "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
             WHERE application_name = '{name}'"
        ))?;
        assert_eq!(ssl, if encrypted { "t" } else { "f" }, "{ask}");
        let report = trace.stop()?;
        only_session(&report).with_context(|| ask.clone())?;
    }
    Ok(())
}

/// Under TLS, the server join knows the session's state, and the wire does not.
fn state_under_tls(suite: &Suite) -> Result<()> {
    let mut shop = Shop::start(suite, Build::Debug, &["sslmode=require"])?;
    let trace = joined(suite)?.pid(shop.pid()).start()?;
    shop.ok("transaction")?;
    let finding = trace.finding(|finding| finding.reason == "idle_in_transaction")?;
    assert!(finding.is_leak(), "{finding:#?}");
    assert!(finding.evidence.contains(" says"), "{}", finding.evidence);
    let report = trace.stop()?;
    let connection = report.only_connection()?;
    assert!(connection.wire.tls);
    assert_eq!(connection.wire.state, "in_transaction");
    assert_eq!(connection.wire.source.as_deref(), Some("server"));
    let session = only_session(&report)?;
    assert_eq!(session.state.as_deref(), Some("idle in transaction"));
    assert_eq!(session.query.as_deref(), Some("SELECT ?"));
    assert!(session.xact_ms >= Some(2000), "{session:?}");
    assert_eq!(report.leaks().first().and_then(|leak| leak.function()), Some("refund_order"));
    Ok(())
}

fn in_a_transaction_before_tracing(suite: &Suite) -> Result<()> {
    let mut shop = suite.shop(Build::Debug)?;
    shop.ok("transaction")?;
    shop.ok("serve 1")?;
    let trace = joined(suite)?.pid(shop.pid()).start()?;
    let finding = trace.finding(|finding| finding.reason == "idle_in_transaction")?;
    assert!(finding.is_leak(), "{finding:#?}");
    assert_eq!(finding.count, 1, "the idle connection does not count: {finding:#?}");
    let verdict = trace.stop()?.verdict;
    // The other one is idle, which says nothing about whether its pool still has it.
    assert_eq!((verdict.leaks, verdict.unknown_older), (1, 1), "{verdict:?}");
    Ok(())
}

/// Without the server's word, nothing is known of connections that are older than the trace and of
/// no known driver, and that is what the report says.
fn unknown_without_the_server(suite: &Suite) -> Result<()> {
    let mut client = suite.client()?;
    client.ok(&format!("connect 4 {}", suite.port()))?;
    client.ok("startup")?;
    client.ok("query BEGIN")?;
    let trace = suite.trace().pid(client.pid()).flag("--fail-on-leak").output("json");
    let trace = trace.option("--duration", "4s").start()?;
    let outcome = trace.outcome()?;
    let report = outcome.report()?;
    assert!(report.leaks().is_empty(), "{:#?}", report.findings);
    assert_eq!(report.verdict.unknown_older, 1, "{:#?}", report.connections);
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("cannot tell") && outcome.stderr.contains("--pg-dsn"));
    Ok(())
}

fn sessions_of_nobody(suite: &Suite) -> Result<()> {
    let server = own_server(suite)?;
    let at_server = |name: &str| Shop::start_at(suite, server.port(), &["sslmode=disable", name]);
    let mut traced = at_server("application_name=ours")?;
    let mut other = at_server("application_name=theirs")?;
    other.ok("burst 3")?;
    other.ok("transaction")?;
    traced.ok("burst 2")?;
    let trace = suite
        .trace_port(server.port())
        .pid(traced.pid())
        .option("--pg-dsn", &dsn(&server))
        .start()?;
    let report = trace.stop()?;
    let server = report.only_server()?;
    assert_eq!((server.used, server.traced), (Some(5), Some(2)));
    let group = |name: &str| {
        server.unowned.iter().find(|group| group.application_name.as_deref() == Some(name))
    };
    assert!(group("ours").is_none(), "{server:#?}");
    assert!(group("pgsocktrace").is_none(), "the tracer's own session does not count: {server:#?}");
    let theirs = group("theirs").context("theirs")?;
    assert_eq!(theirs.client_addr.as_deref(), Some("127.0.0.1"));
    assert_eq!((theirs.user.as_deref(), theirs.count), (Some("postgres"), 3));
    assert_eq!(theirs.states.get("idle in transaction"), Some(&1), "{theirs:?}");
    assert_eq!(theirs.states.get("idle"), Some(&2), "{theirs:?}");
    let ours =
        server.applications.iter().find(|one| one.application_name.as_deref() == Some("ours"));
    let ours = ours.context("ours")?;
    assert_eq!((ours.count, ours.traced), (2, Some(2)));
    Ok(())
}

/// A role without `pg_monitor` sees only that there are sessions, and the report says so.
fn nothing_granted(suite: &Suite) -> Result<()> {
    let server = own_server(suite)?;
    server.sql("CREATE ROLE blind LOGIN")?;
    let mut shop = Shop::start_at(suite, server.port(), &[])?;
    shop.ok("serve 1")?;
    let ask = format!("host=127.0.0.1 port={} user=blind dbname=postgres", server.port());
    let trace = suite.trace_port(server.port()).pid(shop.pid()).option("--pg-dsn", &ask).start()?;
    until_server(&trace, "answering")?;
    trace.signal(Signal::INT);
    let outcome = trace.outcome()?;
    assert!(outcome.stderr.contains("pg_monitor"), "{}", outcome.stderr);
    let report = outcome.report()?;
    assert_eq!(report.only_server()?.hidden, 1);
    assert!(report.only_connection()?.server.is_none());
    Ok(())
}

fn server_restarted(suite: &Suite) -> Result<()> {
    let mut server = own_server(suite)?;
    let mut client = suite.client()?;
    let trace = suite
        .trace_port(server.port())
        .pid(client.pid())
        .option("--pg-dsn", &dsn(&server))
        .start()?;
    until_server(&trace, "answering")?;
    server.stop();
    until_server(&trace, "unreachable")?;
    server.resume()?;
    let answers = || {
        let is = |event: &&harness::Event, status: &str| {
            event.field("status").and_then(|value| value.as_str()) == Some(status)
        };
        let events = trace.events();
        let lost = events.iter().position(|event| is(&event, "unreachable"));
        events.iter().skip(lost.unwrap_or(0)).filter(|event| is(event, "answering")).count()
    };
    eventually("the server answers again", || Ok(answers() > 0))?;
    client.ok(&format!("connect 4 {}", server.port()))?;
    client.ok("startup")?;
    let report = trace.stop()?;
    only_session(&report)?;
    let told = report.only_server()?;
    assert_eq!(told.status, "answering");
    assert!(told.failures >= 1 && told.refusals == 0, "{told:#?}");
    Ok(())
}

/// A server with room for five unprivileged clients, and a leaking shop.
fn small_server(suite: &Suite) -> Result<(Server, Shop)> {
    let mut server = own_server(suite)?;
    server.sql("ALTER SYSTEM SET max_connections = 8")?;
    server.sql("ALTER SYSTEM SET superuser_reserved_connections = 3")?;
    server.sql("ALTER SYSTEM SET max_wal_senders = 0")?;
    server.stop();
    server.resume()?;
    let shop = Shop::start_at(suite, server.port(), &[])?;
    Ok((server, shop))
}

/// The server refuses the tracer's own session: that is evidence, and the trace goes on.
fn server_full_before_tracing(suite: &Suite) -> Result<()> {
    let (server, mut shop) = small_server(suite)?;
    shop.ok("burst 5")?;
    let trace = suite
        .trace_port(server.port())
        .pid(shop.pid())
        .option("--pg-dsn", &dsn(&server))
        .start()?;
    until_server(&trace, "refusing")?;
    let pids = server.sql(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'shop' ORDER BY pid LIMIT 2",
    )?;
    for pid in pids.lines() {
        server.terminate(pid.parse()?)?;
    }
    until_server(&trace, "answering")?;
    trace.signal(Signal::INT);
    let outcome = trace.outcome()?;
    assert!(outcome.stderr.contains("all its connections are taken"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("answers again"), "{}", outcome.stderr);
    let report = outcome.report()?;
    let told = report.only_server()?;
    assert!(told.refusals >= 1, "{told:#?}");
    assert_eq!((told.status.as_str(), told.used, told.full), ("answering", Some(3), false));
    assert_eq!(report.connections.iter().filter(|one| one.server.is_some()).count(), 3);
    Ok(())
}

/// A tracer that already has a session keeps it, and sees that the server has no room for others.
fn server_full_while_traced(suite: &Suite) -> Result<()> {
    let (server, mut shop) = small_server(suite)?;
    let trace = suite
        .trace_port(server.port())
        .pid(shop.pid())
        .option("--pg-dsn", &dsn(&server))
        .start()?;
    until_server(&trace, "answering")?;
    // The role may not use the connections that are reserved for superusers.
    shop.ok("burst 4")?;
    trace.event("server", |event| event.field("used").and_then(|used| used.as_u64()) == Some(4))?;
    let report = trace.stop()?;
    let told = report.only_server()?;
    assert_eq!((told.status.as_str(), told.full, told.refusals), ("answering", true, 0));
    assert_eq!((told.max_connections, told.traced), (Some(8), Some(4)));
    Ok(())
}

/// Everything happened before the trace. Only the server knows that the pool opened connections
/// while others were idle.
fn exhausted_before_tracing(suite: &Suite) -> Result<()> {
    let (server, mut shop) = small_server(suite)?;
    for _ in 0..4 {
        shop.ok("return")?;
        // Spreads the connections over more than the two seconds that count as one burst.
        std::thread::sleep(Duration::from_millis(1300));
    }
    let trace = suite
        .trace_port(server.port())
        .pid(shop.pid())
        .option("--pg-dsn", &dsn(&server))
        .start()?;
    let finding = trace.finding(|finding| finding.is_leak())?;
    assert_eq!((finding.reason.as_str(), finding.count), ("abandoned", 4));
    assert!(finding.evidence.contains("the server has none left of the 5"), "{finding:#?}");
    assert_eq!(trace.stop()?.leaks().len(), 1);
    Ok(())
}

/// A pool as big as its server, filled at once, may stay idle for ever.
fn idle_on_a_full_server(suite: &Suite) -> Result<()> {
    let (server, mut shop) = small_server(suite)?;
    shop.ok("burst 4")?;
    let trace = suite
        .trace_port(server.port())
        .pid(shop.pid())
        .option("--pg-dsn", &dsn(&server))
        .start()?;
    trace.finding(|finding| finding.reason == "silent" && finding.count == 4)?;
    trace.let_intervals_pass(20);
    let report = trace.stop()?;
    assert!(report.only_server()?.full, "{:#?}", report.servers);
    assert!(report.leaks().is_empty(), "{:#?}", report.findings);
    Ok(())
}

/// A trace with a server join on two servers; each reports its own sessions.
fn two_servers(suite: &Suite) -> Result<()> {
    let other = own_server(suite)?;
    let mut client = suite.client()?;
    let trace = joined(suite)?
        .pid(client.pid())
        .port(other.port())
        .option("--pg-dsn", &dsn(&other))
        .start()?;
    let opened = client.ok(&format!("connect 4 {}", other.port()))?;
    client.ok("startup")?;
    let report = trace.stop()?;
    let connection = report.connection(opened.number("cookie")?)?;
    let session = connection.server.as_ref().context("session")?;
    assert!(session.server.contains(&other.port().to_string()), "{session:?}");
    assert_eq!(report.servers.len(), 2);
    assert!(report.servers.iter().all(|server| server.status == "answering"));
    Ok(())
}

/// Traces a client of this server with a server join by this connection string, which must not end
/// the trace.
fn goes_on(suite: &Suite, port: u16, ask: &str) -> Result<(String, Report)> {
    let mut client: Program = suite.client()?;
    let trace = suite.trace().pid(client.pid()).variable("PGSOCKTRACE_PG_DSN", ask).start()?;
    until_server(&trace, "unreachable")?;
    let id = client.ok(&format!("connect 4 {port}"))?.number("cookie")?;
    client.ok("startup")?;
    trace.event_about("connection_established", id)?;
    trace.signal(Signal::INT);
    let outcome = trace.outcome()?;
    // Whoever names a server wants its word.
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("never answered"), "{}", outcome.stderr);
    let report = outcome.report()?;
    report.connection(id)?;
    let server = report.only_server()?;
    assert_eq!(server.status, "unreachable");
    assert!(server.failures >= 1);
    assert!(server.message.is_some());
    assert!(outcome.stderr.contains("cannot be queried"), "{}", outcome.stderr);
    Ok((outcome.stderr, report))
}

fn wrong_password(suite: &Suite) -> Result<()> {
    let server = own_server(suite)?;
    server.ask_for_passwords()?;
    let ask = |password: &str| format!("{} password={password}", dsn(&server));
    let (complaint, _) = goes_on(suite, suite.port(), &ask("battery-staple"))?;
    assert!(complaint.contains("password authentication failed"), "{complaint}");
    assert!(!complaint.contains("battery-staple"), "{complaint}");

    let client = suite.client()?;
    let trace =
        suite.trace().pid(client.pid()).variable("PGSOCKTRACE_PG_DSN", &ask(PASSWORD)).start()?;
    until_server(&trace, "answering").context("with the right password")?;
    Ok(())
}

/// The tracer gives up a server that does not answer. The trace waits neither for the answer nor,
/// at its end, for the query.
fn mute_server(suite: &Suite) -> Result<()> {
    let server = FakeServer::start(Manner::Mute)?;
    let ask = format!("host=127.0.0.1 port={} user={ROLE}", server.port());
    let (complaint, _) = goes_on(suite, suite.port(), &ask)?;
    assert!(complaint.contains("no answer within"), "{complaint}");
    Ok(())
}

/// With certificate verification, the tracer refuses any other server.
fn wrong_certificate(suite: &Suite) -> Result<()> {
    let other = own_server(suite)?;
    let ask = |mode: &str, certificate: &Server| {
        format!(
            "{} sslmode={mode} sslrootcert={}/server.crt",
            dsn(suite.server()),
            certificate.data().display()
        )
    };
    make_role(suite.server())?;
    let (complaint, _) = goes_on(suite, suite.port(), &ask("verify-ca", &other))?;
    assert!(complaint.contains("certificate"), "{complaint}");
    // The right certificate, but issued for localhost and not for the address.
    let (complaint, _) = goes_on(suite, suite.port(), &ask("verify-full", suite.server()))?;
    assert!(complaint.contains("certificate"), "{complaint}");
    Ok(())
}

/// Without --pid, the tracer traces every process on the node except itself.
fn own_session_is_not_traced(suite: &Suite) -> Result<()> {
    let server = own_server(suite)?;
    let mut client = suite.client()?;
    let trace = suite.trace_port(server.port()).option("--pg-dsn", &dsn(&server)).start()?;
    let own = trace.pid();
    until_server(&trace, "answering")?;
    client.ok(&format!("connect 4 {}", server.port()))?;
    client.ok("startup")?;
    let report = trace.stop()?;
    assert!(report.process(own).is_err(), "{:#?}", report.processes);
    assert_eq!(report.only_connection()?.pid, Some(client.pid()));
    assert_eq!(report.only_server()?.used, Some(1));
    Ok(())
}

fn password_is_never_shown(suite: &Suite) -> Result<()> {
    const SECRET: &str = "hunter2hunter2";
    let text = |output: &std::process::Output| {
        let (out, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        format!("{out}{err}")
    };
    for wrong in [
        format!("host=db password='{SECRET}"),
        format!("postgres://watch:{SECRET}@db:port/x"),
        format!("postgres://watch:x@{SECRET}@db/x"),
        SECRET.to_owned(),
    ] {
        for output in [
            finish(suite.tool().args(["--pg-dsn", &wrong, "--duration", "1s"]))?,
            finish(suite.tool().env("PGSOCKTRACE_PG_DSN", &wrong).args(["--duration", "1s"]))?,
        ] {
            assert_eq!(output.status.code(), Some(2), "{}", text(&output));
            assert!(text(&output).contains("--pg-dsn"), "{}", text(&output));
            assert!(!text(&output).contains(SECRET), "{}", text(&output));
        }
    }
    let good = format!("postgres://watch:{SECRET}@127.0.0.1:1/x");
    let help = finish(suite.tool().env("PGSOCKTRACE_PG_DSN", &good).arg("--help"))?;
    assert!(text(&help).contains("PGSOCKTRACE_PG_DSN") && !text(&help).contains(SECRET));
    let traced = finish(suite.tool().args(["--pg-dsn", &good, "--duration", "1s", "-vv"]))?;
    let said = text(&traced);
    assert!(said.contains("`ps`"), "the tracer warns that `ps` shows the password: {said}");
    assert!(said.contains("Connection refused"), "{said}");
    assert!(!said.contains(SECRET), "{said}");
    Ok(())
}
