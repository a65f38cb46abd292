//! What the collector takes with many connections.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::{
    Bench, Traced,
    figure::{Row, Section, Spread},
    resident,
};
use crate::process::{self, Guarded, pause};

/// Connections that are held.
const SIZES: [usize; 4] = [0, 10_000, 20_000, 100_000];

/// Connections of one process: the usual limit of open files leaves room for them.
const EACH: usize = 15_000;

/// Connections that a listener keeps before anybody accepts them: the kernel's usual limit.
const BACKLOG: usize = 4_000;

/// Opens connections and holds them. A small program: what it takes to read a large one's symbols is
/// measured elsewhere.
const HOLDER: &str = include_str!("holder.c");

/// Intervals that are measured.
const INTERVALS: usize = 7;

/// How long an empty tracer is watched.
const IDLE: Duration = Duration::from_secs(60);

/// How long it may take until all connections are known.
const PATIENCE: Duration = Duration::from_secs(120);

/// What an interval's work took, in milliseconds of CPU time, as the tracer's debug log tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Interval {
    connections: usize,
    reading: f64,
    applying: f64,
    listing: f64,
    holding: f64,
}

/// Measures with no, some and many connections.
pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let mut rows = vec![idle(bench)?];
    for size in SIZES {
        rows.extend(held(bench, size)?);
    }
    Ok(Section {
        title: "The collector",
        how: format!(
            "Connections that rest, from processes of {EACH} connections each, of a small program in C, to \
             listeners on loopback. CPU time is the collector's own count (`-v`), of {INTERVALS} intervals; \
             resident memory includes what it has mapped of the kernel's table."
        ),
        rows,
    })
}

/// An empty tracer at its usual interval.
fn idle(bench: &Bench) -> Result<Row> {
    let Traced { tracer, .. } = bench.trace(1, &[])?;
    let before = cpu_time(tracer.pid())?;
    pause(IDLE)?;
    let share = (cpu_time(tracer.pid())? - before).as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    let what = "CPU of a collector that has nothing to do, of a core";
    Ok(Row::new(what, "%", Some(Spread::one(share))).at_most(0.1))
}

fn held(bench: &Bench, size: usize) -> Result<Vec<Row>> {
    let crowd = Crowd::open(size)?;
    let table = (2 * size).max(32 * 1024).to_string();
    let options = ["--interval", "2s", "--max-connections", &table, "-v"];
    let Traced { tracer, told, .. } = bench.trace(crowd.port, &options)?;
    let _held = crowd.hold(size)?;
    let end = Instant::now() + PATIENCE;
    let mut intervals = Vec::new();
    while intervals.len() < INTERVALS {
        let left = end.saturating_duration_since(Instant::now());
        let line = told.recv_timeout(left).context("The tracer does not see all connections.")?;
        intervals.extend(interval(&line).filter(|interval| interval.connections >= size));
    }
    // The first one still takes in what has just been opened.
    let spread = |of: fn(&Interval) -> f64| Spread::of(intervals[1..].iter().map(of).collect());
    let memory = resident(tracer.pid())? as f64 / 1024.0;
    let with = match size {
        0 => "no connections".to_owned(),
        size => format!("{size} connections"),
    };
    let mut memory = Row::new(format!("resident with {with}"), "MiB", Some(Spread::one(memory)));
    memory.target = match size {
        0 => Some(30.0),
        10_000 => Some(60.0),
        100_000 => Some(200.0),
        _ => None,
    };
    let mut rows = vec![memory];
    if size == 100_000 {
        rows.push(
            Row::new(format!("reading the state of {with}"), "ms", spread(|of| of.reading))
                .at_most(20.0),
        );
        rows.push(Row::new(format!("taking it in, {with}"), "ms", spread(|of| of.applying)));
    }
    if size == 20_000 {
        let listing = spread(|of| of.listing);
        rows.push(
            Row::new(format!("the kernel's list of {size} sockets"), "ms", listing).at_most(30.0),
        );
        rows.push(Row::new(format!("who holds {size} sockets"), "ms", spread(|of| of.holding)));
    }
    Ok(rows)
}

/// Listeners on one port of many addresses, whose queues hold the connections.
struct Crowd {
    port: u16,
    /// Where the program that opens the connections was compiled.
    directory: TempDir,
    _listeners: Vec<TcpListener>,
}

impl Crowd {
    fn open(size: usize) -> Result<Self> {
        let first = TcpListener::bind(address(0, 0))?;
        let port = first.local_addr()?.port();
        let mut listeners = vec![first];
        for number in 1..size.div_ceil(BACKLOG) {
            listeners.push(TcpListener::bind(address(number, port))?);
        }
        for listener in &listeners {
            deepen(listener)?;
        }
        let directory = TempDir::with_prefix("pgsocktrace-")?;
        let source = directory.path().join("holder.c");
        fs::write(&source, HOLDER)?;
        let mut compile = Command::new("gcc");
        process::check(compile.arg("-O2").arg(&source).arg("-o").arg(holder(&directory)))?;
        Ok(Self { port, directory, _listeners: listeners })
    }

    /// Has so many connections opened, by processes that hold them until they are let go.
    fn hold(&self, size: usize) -> Result<Vec<Guarded>> {
        let mut held = Vec::new();
        for first in (0..size).step_by(EACH) {
            let count = EACH.min(size - first);
            let arguments = [usize::from(self.port), first, count, BACKLOG];
            let mut command = Command::new(holder(&self.directory));
            command
                .args(arguments.map(|argument| argument.to_string()))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped());
            let mut holder = Guarded::spawn(&mut command, libc::SIGKILL)?;
            let stdout = holder.child().stdout.take().context("A holder has no output.")?;
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line)?;
            ensure!(line == "held\n", "{count} connections cannot be opened.");
            held.push(holder);
        }
        Ok(held)
    }
}

/// The program that holds connections.
fn holder(directory: &TempDir) -> PathBuf {
    directory.path().join("holder")
}

/// 127.0.0.1 and what follows it.
fn address(number: usize, port: u16) -> SocketAddrV4 {
    let number = u32::try_from(number).unwrap_or(0);
    SocketAddrV4::new(Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + number), port)
}

/// Makes a listener's queue as long as the kernel allows.
fn deepen(listener: &TcpListener) -> Result<()> {
    use std::os::fd::AsRawFd as _;
    // SAFETY: the descriptor is open.
    let result = unsafe { libc::listen(listener.as_raw_fd(), BACKLOG as libc::c_int + 96) };
    ensure!(result == 0, "listen(2) failed: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Reads `… CPU time: 10 connections read in 1.5ms and taken in in 2ms, 10 sockets listed in 3ms, their
/// holders found in 4ms`.
fn interval(line: &str) -> Option<Interval> {
    let text = line.split_once("CPU time: ")?.1;
    let (connections, text) = text.split_once(" connections read in ")?;
    let (reading, text) = text.split_once(" and taken in in ")?;
    let (applying, text) = text.split_once(", ")?;
    let (listing, holding) =
        text.split_once(" listed in ")?.1.split_once(", their holders found in ")?;
    Some(Interval {
        connections: connections.parse().ok()?,
        reading: milliseconds(reading)?,
        applying: milliseconds(applying)?,
        listing: milliseconds(listing)?,
        holding: milliseconds(holding)?,
    })
}

/// Reads a duration as Rust shows it.
fn milliseconds(text: &str) -> Option<f64> {
    let number = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(number);
    let scale = match unit {
        "s" => 1e3,
        "ms" => 1.0,
        "µs" => 1e-3,
        "ns" => 1e-6,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * scale)
}

/// CPU time of all threads of a process.
fn cpu_time(pid: u32) -> Result<Duration> {
    let mut sum = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // The first number of schedstat, in nanoseconds. A thread may have ended.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        let nanoseconds = text.split(' ').next().and_then(|number| number.parse().ok());
        sum += Duration::from_nanos(nanoseconds.context("The kernel does not tell CPU times.")?);
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_an_interval_took() {
        let line = "pgsocktrace: debug: CPU time: 10 connections read in 1.5ms and taken in in 250µs, 12 \
                    sockets listed in 1.25s, their holders found in 800ns";
        let read = Interval {
            connections: 10,
            reading: 1.5,
            applying: 0.25,
            listing: 1250.0,
            holding: 0.0008,
        };
        let told = interval(line).unwrap();
        assert_eq!((told.connections, told.reading), (read.connections, read.reading));
        assert!(
            (told.applying - read.applying).abs() < 1e-9
                && (told.holding - read.holding).abs() < 1e-9
        );
        assert!((told.listing - read.listing).abs() < 1e-9);
        assert_eq!(interval("pgsocktrace: debug: CPU time: judged in 3ms"), None);
        assert_eq!(milliseconds("3 weeks"), None);
    }

    #[test]
    fn addresses_are_all_of_loopback() {
        assert_eq!(address(0, 80).to_string(), "127.0.0.1:80");
        assert_eq!(address(24, 80).to_string(), "127.0.0.25:80");
    }
}
