//! One history of connections, traced with all kinds of hooks at once: all traces must report the
//! same, and what the clients did.

use std::collections::BTreeMap;
use std::{fmt, fs};

use anyhow::{Context, Result, ensure};
use harness::process::Signal;
use harness::server::free_port;
use harness::{FakeServer, Manner, Namespace, Program, Reply, Report, Suite, Trace};

const SENDERS: [&str; 9] =
    ["write", "send", "sendto", "sendmsg", "sendmmsg", "writev", "send_more", "sendfile", "splice"];
const RECEIVERS: [&str; 8] =
    ["read", "recv", "recvfrom", "peek", "recvmsg", "recvmmsg", "readv", "splice"];
/// Calls without a buffer that the kernel programs could read.
const UNSEEN: [&str; 2] = ["sendfile", "splice"];

/// The maximum number of attempts, for kernels that skip runs of the programs.
const ATTEMPTS: u32 = 5;

/// The number of SYN retries before a connect times out.
const SYN_RETRIES: &str = "/proc/sys/net/ipv4/tcp_syn_retries";

/// A client's own knowledge of an open connection.
struct Known {
    what: String,
    pid: u32,
    sent: u64,
    received: u64,
    states: &'static [&'static str],
    tcp_state: &'static str,
}

/// Events by connection, in order.
type Told = BTreeMap<u64, Vec<String>>;

/// The output of one tracer.
struct Account {
    told: Told,
    report: Report,
}

/// The kernel has skipped this many runs of the programs. Each may have concerned the clients.
#[derive(Debug)]
struct Skipped(u64);

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the kernel skipped {} runs of the programs", self.0)
    }
}

pub(super) fn told(suite: &Suite, flavours: &[&str]) -> Result<()> {
    let retries = fs::read_to_string(SYN_RETRIES)?;
    fs::write(SYN_RETRIES, "1")?;
    let done = until_none_was_skipped(suite, flavours);
    fs::write(SYN_RETRIES, retries)?;
    done
}

/// Repeats the history until no run was skipped. A preemptible kernel occasionally skips a run of a
/// program, and the tracer counts these: only then may the report be incomplete.
fn until_none_was_skipped(suite: &Suite, flavours: &[&str]) -> Result<()> {
    for _ in 1..ATTEMPTS {
        match play(suite, flavours) {
            Err(error) if error.is::<Skipped>() => println!("{error:#}; once more"),
            done => return done,
        }
    }
    play(suite, flavours)
}

fn play(suite: &Suite, flavours: &[&str]) -> Result<()> {
    let closed = free_port()?;
    let full = FakeServer::start(Manner::Full)?;
    let (namespace, far) = Namespace::create(|| FakeServer::start(Manner::Postgres))?;
    let mut client = suite.client()?;
    let mut mayfly = suite.client()?;
    let mut stranger = suite.client_in(&namespace)?;
    let mut traces = Vec::new();
    for flavour in flavours {
        let mut trace = suite.trace().option("--hooks", flavour);
        // Copying stacks is slow under emulation.
        trace = trace.option("--stack-budget", "900ms");
        for port in [closed, full.port(), far.port()] {
            trace = trace.port(port);
        }
        for pid in [client.pid(), mayfly.pid(), stranger.pid()] {
            trace = trace.pid(pid);
        }
        traces.push(trace.start()?);
    }

    let mut open = BTreeMap::new();
    let port = suite.port();
    for family in ["4", "6", "mapped"] {
        let id = client.ok(&format!("connect {family} {port}"))?.number("cookie")?;
        client.ok("startup")?;
        let reply = client.ok("query SELECT 1")?;
        open.insert(id, Known::of(&client, family, &reply, &["idle"])?);
    }
    for (how, flavours) in [("send-by", &SENDERS[..]), ("receive-by", &RECEIVERS[..])] {
        for flavour in flavours {
            let id = connect(&mut client, port)?;
            client.ok(&format!("{how} {flavour}"))?;
            client.ok("query SELECT 1")?;
            let reply = client.ok("query BEGIN")?;
            let states: &[&str] = if UNSEEN.contains(flavour) {
                &["in_transaction", "unknown"]
            } else {
                &["in_transaction"]
            };
            open.insert(id, Known::of(&client, &format!("{how} {flavour}"), &reply, states)?);
            client.ok("send-by send")?;
            client.ok("receive-by recv")?;
        }
    }
    let mut gone = Vec::new();
    for end in ["close", "reset"] {
        gone.push(connect(&mut client, port)?);
        client.ok(end)?;
    }
    gone.push(connect(&mut mayfly, port)?);
    mayfly.tell("exit 0")?;
    mayfly.ended()?;
    let id = client.ok(&format!("connect 4 {port}"))?.number("cookie")?;
    let reply = client.ok("startup")?;
    suite.server().terminate(reply.number("backend")?)?;
    let mut known = Known::of(&client, "closed by the server", &reply, &["idle"])?;
    known.tcp_state = "CLOSE_WAIT";
    open.insert(id, known);
    ensure!(client.ok(&format!("connect 4 {closed}")).is_err(), "the port is not closed");
    ensure!(client.ok(&format!("connect 4 {}", full.port())).is_err(), "the listener is not full");
    let id = connect(&mut stranger, far.port())?;
    let reply = stranger.ok("query SELECT 1")?;
    open.insert(id, Known::of(&stranger, "in a namespace", &reply, &["idle"])?);

    let mut accounts = Vec::new();
    for (trace, flavour) in traces.into_iter().zip(flavours) {
        accounts.push(heard(trace, &open, &gone).with_context(|| format!("flavour {flavour}"))?);
    }
    let skipped = accounts.iter().map(|account| account.report.skipped_runs).sum();
    let compared = compare(&accounts, flavours, &open);
    if skipped > 0 { compared.context(Skipped(skipped)) } else { compared }
}

/// Compares the tracers' reports with the clients' knowledge, and with each other.
fn compare(accounts: &[Account], flavours: &[&str], open: &BTreeMap<u64, Known>) -> Result<()> {
    let mut all = Vec::new();
    for (account, flavour) in accounts.iter().zip(flavours) {
        all.push(lines(account, open).with_context(|| format!("flavour {flavour}"))?);
    }
    for (other, flavour) in all.iter().zip(flavours).skip(1) {
        for (mine, theirs) in all[0].iter().zip(other) {
            ensure!(mine == theirs, "{}: {mine}\n{flavour}: {theirs}", flavours[0]);
        }
    }
    Ok(())
}

fn connect(client: &mut Program, port: u16) -> Result<u64> {
    let id = client.ok(&format!("connect 4 {port}"))?.number("cookie")?;
    client.ok("startup")?;
    Ok(id)
}

impl Known {
    fn of(
        client: &Program,
        what: &str,
        reply: &Reply,
        states: &'static [&'static str],
    ) -> Result<Self> {
        Ok(Self {
            what: what.to_owned(),
            pid: client.pid(),
            sent: reply.number("sent")?,
            received: reply.number("received")?,
            states,
            tcp_state: "ESTABLISHED",
        })
    }
}

/// The complete output of a tracer.
fn heard(trace: Trace, open: &BTreeMap<u64, Known>, gone: &[u64]) -> Result<Account> {
    // The tracer reads the latest stack of a connection once the connection is silent.
    for (id, known) in open {
        trace.finding(|f| f.connections.contains(id)).with_context(|| known.what.clone())?;
    }
    for id in gone {
        trace.event_about("connection_closed", *id)?;
    }
    let mut told: Told = BTreeMap::new();
    for event in trace.events() {
        if let Some(id) = event.id().filter(|_| event.kind.starts_with("connection_")) {
            told.entry(id).or_default().push(event.kind);
        }
    }
    trace.signal(Signal::INT);
    let outcome = trace.outcome()?;
    let report = outcome.report()?;
    assert_eq!(report.events.lost, 0, "{}", outcome.stderr);
    Ok(Account { told, report })
}

/// One line per connection and event that a tracer reported, after checking them against the
/// clients' knowledge.
fn lines(account: &Account, open: &BTreeMap<u64, Known>) -> Result<Vec<String>> {
    let Account { told, report } = account;
    let ids: Vec<_> = report.connections.iter().map(|connection| connection.id).collect();
    ensure!(ids.len() == open.len(), "{ids:?} instead of {:?}", open.keys());
    let mut lines = Vec::new();
    for (id, known) in open {
        lines.push(described(report, *id, known).with_context(|| known.what.clone())?);
    }
    lines.extend(told.iter().map(|(id, kinds)| format!("{id}: {}", kinds.join(", "))));
    let failed = told.values().filter(|kinds| kinds.iter().any(|k| k == "connection_failed"));
    ensure!(failed.count() == 2, "one refused and one timed-out connect expected: {told:#?}");
    Ok(lines)
}

/// Everything about a connection that does not depend on the time.
fn described(report: &Report, id: u64, known: &Known) -> Result<String> {
    let connection = report.connection(id)?;
    let state = connection.wire.state.as_str();
    ensure!(known.states.contains(&state), "state {state}");
    ensure!(connection.tcp_state == known.tcp_state, "TCP state {}", connection.tcp_state);
    ensure!(
        (connection.bytes_sent, connection.bytes_received) == (known.sent, known.received),
        "{} and {} bytes instead of {} and {}",
        connection.bytes_sent,
        connection.bytes_received,
        known.sent,
        known.received
    );
    ensure!(connection.pid == Some(known.pid) && connection.held_by == [known.pid], "process");
    let mut stacks = Vec::new();
    for (which, stack) in [("opener", &connection.opened_by), ("user", &connection.last_used_by)] {
        // Before Linux 6.5, these calls reached the socket by another function.
        if stack.is_none() && known.states.contains(&"unknown") {
            continue;
        }
        let stack = report
            .stack(stack.as_ref())
            .with_context(|| format!("{which}; {:?}", report.stack_quality))?;
        ensure!(stack.quality == "complete", "{which}: {stack:#?}");
        stack.frame("main")?;
        stacks.push(stack.functions().join(" "));
    }
    Ok(format!(
        "{} {:?} {:?} {} {} {:?} {:?} {} {stacks:?}",
        known.what,
        connection.tid,
        connection.wire.user,
        connection.local,
        connection.remote,
        connection.wire.backend_pid,
        connection.unread_bytes,
        connection.opened_before_trace,
    ))
}
