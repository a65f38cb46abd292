//! Instructions per event with the tracer and with comparable tools. For a virtual machine whose
//! nanoseconds are instructions, as in `instructions.rs`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use harness::cost::{self, Figures, Load, Measured, OURS, Peer, Statistics};
use harness::process::{Guarded, start_silently};
use harness::{Suite, Test, eventually, test};

/// A small load, because emulation is slow.
const LOAD: Load = Load { events: 2000, storm: Duration::from_millis(200) };

/// The load of each round in the measurement of totals.
const ROUND: Load = Load { events: 1000, storm: Duration::from_millis(100) };

/// The number of rounds.
const ROUNDS: usize = 5;

pub(crate) fn tests() -> Vec<Test> {
    vec![test("every_watcher_is_measured", every_watcher_is_measured)]
}

fn every_watcher_is_measured(suite: &Suite) -> Result<()> {
    let ours = measure(|port| trace(suite, port))?;
    tell(OURS, Ok(ours))?;
    for peer in Peer::ALL {
        // A tool that does not work here is no failure of the test, but must be reported.
        let measured = measure(|port| watch(suite, peer, port));
        tell(peer.name(), measured.map_err(|error| format!("{error:#}")))?;
    }
    Ok(())
}

fn measure(watch: impl Fn(u16) -> Result<Guarded>) -> Result<Measured> {
    let programs = cost::measure(LOAD, &Statistics::on()?, &watch, Guarded::pid)?;
    Ok(Measured { programs, total: cost::measure_total(ROUNDS, ROUND, &watch, Guarded::pid)? })
}

/// Prints a watcher's figures. Begins with a newline, because the test's name is on an unfinished
/// line.
fn tell(watcher: &str, measured: Result<Measured, String>) -> Result<()> {
    let figures = Figures { watcher: watcher.to_owned(), measured };
    println!("\nnote: {}", figures.line()?);
    Ok(())
}

/// Starts the tracer with its usual options, but without a limit on recorded stacks.
fn trace(suite: &Suite, port: u16) -> Result<Guarded> {
    let mut command = suite.tool();
    command.args(["--port", &port.to_string(), "--output", "json", "--stack-budget", "1s"]);
    start(suite, &mut command, |log, _| Ok(fs::read_to_string(log)?.contains("Ctrl-C ends it")))
}

/// Starts a comparable tool.
fn watch(suite: &Suite, peer: Peer, port: u16) -> Result<Guarded> {
    let watcher = start(suite, &mut peer.command(port), |_, pid| peer.has_loaded(pid))?;
    thread::sleep(Peer::SETTLING);
    Ok(watcher)
}

/// Starts a watcher and waits until it is ready. Its output goes to a file, because reading a pipe
/// would take instructions.
fn start(
    suite: &Suite,
    command: &mut Command,
    is_ready: impl Fn(&Path, u32) -> Result<bool>,
) -> Result<Guarded> {
    let log = suite.directory()?.join("log");
    let mut watcher = start_silently(command, Stdio::null(), &log)?;
    let ready = eventually("the watcher is ready", || {
        watcher.ensure_running()?;
        is_ready(&log, watcher.pid())
    });
    ready.with_context(|| {
        format!("it said: {}", fs::read_to_string(&log).unwrap_or_default().trim())
    })?;
    Ok(watcher)
}
