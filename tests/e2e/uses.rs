//! The latest uses of each connection: the code that made them, their time and their duration.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::{fs, thread};

use anyhow::{Context, Result};
use harness::process::Signal;
use harness::server::USER;
use harness::{Need, Program, Report, Suite, Test, Use, bound, eventually, test};
use jiff::Timestamp;

pub(crate) fn tests() -> Vec<Test> {
    let all: Vec<Test> = vec![
        test("known_transactions", known_transactions),
        test("encrypted_requests_have_no_end", encrypted_requests_have_no_end),
        test("fewer_than_asked_for", fewer_than_asked_for),
        test("while_others_wait_for_bytes", while_others_wait_for_bytes),
        test("while_others_wait_for_room", while_others_wait_for_room),
        test("not_asked_for", not_asked_for),
        test("too_many_asked_for", too_many_asked_for),
    ];
    all.into_iter().map(|test| test.needs(Need::Libpq)).collect()
}

/// A client's own account of a use.
struct Done {
    function: &'static str,
    tid: u64,
    from: i64,
    to: i64,
}

fn client(suite: &Suite, sslmode: &str) -> Result<Program> {
    let port = suite.port();
    let server = format!(
        "host=127.0.0.1 port={port} user={USER} dbname=postgres gssencmode=disable sslmode={sslmode}"
    );
    Program::start(Command::new(suite.app_path("uses")?).arg(server))
}

/// Makes the client run one of its functions.
fn act(client: &mut Program, function: &'static str) -> Result<Done> {
    let command = match function {
        "read_price" => "read",
        "place_order" => "order",
        _ => "begin",
    };
    let reply = client.ok(command)?;
    let time = |key| anyhow::Ok(i64::try_from(reply.number(key)?)?);
    Ok(Done { function, tid: reply.number("tid")?, from: time("from")?, to: time("to")? })
}

fn milliseconds(time: &str) -> Result<i64> {
    Ok(time.parse::<Timestamp>().with_context(|| time.to_owned())?.as_millisecond())
}

fn uses(report: &Report) -> Result<&[Use]> {
    report.only_connection()?.uses.as_deref().context("no uses")
}

/// The tolerance between two clocks in milliseconds: larger on slow machines.
fn jitter() -> i64 {
    i64::try_from(bound().as_secs() / 5).unwrap_or(5)
}

/// Compares a use with the client's account. Clocks are truncated to milliseconds and may be
/// adjusted.
fn is_right(report: &Report, one: &Use, done: &Done, client: u32) -> Result<()> {
    let jitter = jitter();
    assert_eq!((one.pid, u64::from(one.tid)), (client, done.tid));
    let acquired = milliseconds(&one.acquired_at)?;
    assert!((done.from - jitter..=done.to + jitter).contains(&acquired), "{one:?}");
    let stack = report.stack(one.stack.as_ref())?;
    assert_eq!(stack.quality, "complete", "{stack:#?}");
    let named = |frame: &harness::report::Frame| frame.function.as_deref() == Some(done.function);
    assert!(stack.frames.iter().any(named), "{}: {stack:#?}", done.function);
    Ok(())
}

fn known_transactions(suite: &Suite) -> Result<()> {
    let mut client = client(suite, "disable")?;
    let path = suite.directory()?.join("run").display().to_string();
    let trace = suite.trace().pid(client.pid()).option("--uses", "4").option("--record", &path);
    let trace = trace.start()?;
    let mut all = Vec::new();
    for function in ["read_price", "place_order", "read_price", "read_price", "place_order"] {
        all.push(act(&mut client, function)?);
    }
    all.push(act(&mut client, "forget_to_end")?);
    trace.signal(Signal::INT);
    let outcome = trace.outcome()?;
    let report = outcome.report()?;

    let uses = uses(&report)?;
    assert_eq!(uses.len(), 4, "{uses:#?}");
    for (one, done) in uses.iter().zip(&all[2..]) {
        is_right(&report, one, done, client.pid())?;
    }
    let (last, ended) = uses.split_last().context("uses")?;
    assert_eq!(last.released_at, None, "its transaction was never ended");
    let mut before = 0;
    for (one, done) in ended.iter().zip(&all[2..]) {
        let acquired = milliseconds(&one.acquired_at)?;
        let released = milliseconds(one.released_at.as_ref().context("released_at")?)?;
        // The server sleeps for 50 ms in each use.
        assert!(acquired >= before && released >= acquired + 49, "{uses:#?}");
        assert!(released <= done.to + jitter(), "{one:?} until {}", done.to);
        before = released;
    }
    let replayed = suite.tool_says(&["replay", &path, "-o", "ndjson"])?;
    assert_eq!(String::from_utf8(replayed.stdout)?, outcome.recorded());
    Ok(())
}

/// Under TLS, the tracer sees neither the end of a use nor which requests belong to one.
fn encrypted_requests_have_no_end(suite: &Suite) -> Result<()> {
    let mut client = client(suite, "require")?;
    let trace = suite.trace().pid(client.pid()).option("--uses", "16").start()?;
    let order = act(&mut client, "place_order")?;
    let read = act(&mut client, "read_price")?;
    let report = trace.stop()?;
    assert!(report.only_connection()?.wire.tls);
    let uses = uses(&report)?;
    assert_eq!(uses.len(), 4, "{uses:#?}");
    for (one, done) in uses.iter().zip([&order, &order, &order, &read]) {
        is_right(&report, one, done, client.pid())?;
        assert_eq!(one.released_at, None);
    }
    Ok(())
}

fn fewer_than_asked_for(suite: &Suite) -> Result<()> {
    let mut client = client(suite, "disable")?;
    let trace = suite.trace().pid(client.pid()).option("--uses", "3").start()?;
    let read = act(&mut client, "read_price")?;
    let report = trace.stop()?;
    let uses = uses(&report)?;
    assert_eq!(uses.len(), 1, "{uses:#?}");
    is_right(&report, &uses[0], &read, client.pid())
}

/// The kernel tracks only a limited number of concurrent calls of a function until their return,
/// over all processes. Calls that wait for something else must not hide the others.
fn while_others_wait_for_bytes(suite: &Suite) -> Result<()> {
    let mut client = client(suite, "disable")?;
    let trace = suite.trace().pid(client.pid()).option("--uses", "4").start()?;
    let waiting = Waiting::begin(libc::SYS_recvfrom, |stream| drop(stream.read(&mut [0])))?;
    let done = [act(&mut client, "read_price")?, act(&mut client, "place_order")?];
    let report = trace.stop()?;
    drop(waiting);
    assert_eq!(report.events.lost, 0);
    let uses = uses(&report)?;
    assert_eq!(uses.len(), 2, "{uses:#?}");
    for (one, done) in uses.iter().zip(&done) {
        is_right(&report, one, done, client.pid())?;
        assert!(one.released_at.is_some(), "{one:?}");
    }
    Ok(())
}

/// Uses that waiting calls hide nevertheless are counted as lost.
fn while_others_wait_for_room(suite: &Suite) -> Result<()> {
    let mut client = client(suite, "disable")?;
    let trace = suite.trace().pid(client.pid()).option("--uses", "4").start()?;
    let fill = |stream: &mut TcpStream| while stream.write(&[0; 4096]).is_ok() {};
    let waiting = Waiting::begin(libc::SYS_sendto, fill)?;
    let done = [act(&mut client, "read_price")?, act(&mut client, "place_order")?];
    let report = trace.stop()?;
    drop(waiting);
    let (uses, lost) = (uses(&report)?, report.events.lost);
    assert!(lost > 0 || uses.len() == done.len(), "no use was counted as lost, but {uses:#?}");
    Ok(())
}

/// Threads that all wait in the same system call, each on its own connection, until this is
/// dropped.
struct Waiting {
    peers: Vec<TcpStream>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Waiting {
    /// Starts more threads than the kernel tracks: ten, or twice the number of processors.
    fn begin(call: libc::c_long, wait: fn(&mut TcpStream)) -> Result<Self> {
        let mut waiting = Self { peers: Vec::new(), threads: Vec::new() };
        let listener = TcpListener::bind("127.0.0.1:0")?;
        for number in 0..2 * thread::available_parallelism()?.get() + 30 {
            let mut stream = TcpStream::connect(listener.local_addr()?)?;
            waiting.peers.push(listener.accept()?.0);
            let thread = thread::Builder::new().name(format!("waiting {number}"));
            waiting.threads.push(thread.spawn(move || wait(&mut stream))?);
        }
        let count = waiting.threads.len();
        eventually(&format!("{count} threads wait"), || Ok(waiting_threads(call)? == count))?;
        Ok(waiting)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.peers.clear();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The number of this process's threads that wait in this system call.
fn waiting_threads(call: libc::c_long) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir("/proc/self/task")?.flatten() {
        // A thread may have ended since `read_dir`.
        let under_way = fs::read_to_string(entry.path().join("syscall")).unwrap_or_default();
        count += usize::from(under_way.starts_with(&format!("{call} ")));
    }
    Ok(count)
}

fn not_asked_for(suite: &Suite) -> Result<()> {
    let mut client = client(suite, "disable")?;
    let trace = suite.trace().pid(client.pid()).start()?;
    act(&mut client, "read_price")?;
    let report = trace.stop()?;
    assert!(report.only_connection()?.uses.is_none());
    Ok(())
}

fn too_many_asked_for(suite: &Suite) -> Result<()> {
    let output = suite.tool_says(&["--uses", "17"])?;
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("0..=16"));
    Ok(())
}
