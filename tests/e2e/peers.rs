//! What an event takes, in instructions, with the tracer and with what people would use instead.
//! For a virtual machine like that of `instructions.rs`, whose nanoseconds are instructions.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use harness::cost::{self, Figures, Load, Measured, OURS, Peer, Statistics};
use harness::process::{Guarded, start_silently};
use harness::{Suite, Test, eventually, test};

/// Emulated, every event takes its time.
const LOAD: Load = Load { events: 2000, storm: Duration::from_millis(200) };

/// What is measured as a total, in each round.
const ROUND: Load = Load { events: 1000, storm: Duration::from_millis(100) };

/// How many rounds.
const ROUNDS: usize = 5;

pub(crate) fn tests() -> Vec<Test> {
    vec![test("every_watcher_is_measured", every_watcher_is_measured)]
}

fn every_watcher_is_measured(suite: &Suite) -> Result<()> {
    let ours = measure(|port| trace(suite, port))?;
    tell(OURS, Ok(ours))?;
    for peer in Peer::ALL {
        // One that does not work here is no failure of ours, but has to be told.
        let measured = measure(|port| watch(suite, peer, port));
        tell(peer.name(), measured.map_err(|error| format!("{error:#}")))?;
    }
    Ok(())
}

fn measure(watch: impl Fn(u16) -> Result<Guarded>) -> Result<Measured> {
    let programs = cost::measure(LOAD, &Statistics::on()?, &watch, Guarded::pid)?;
    Ok(Measured { programs, total: cost::measure_total(ROUNDS, ROUND, &watch, Guarded::pid)? })
}

/// Says what came of it. The test's name stands on a line without an end.
fn tell(watcher: &str, measured: Result<Measured, String>) -> Result<()> {
    let figures = Figures { watcher: watcher.to_owned(), measured };
    println!("\nnote: {}", figures.line()?);
    Ok(())
}

/// Starts the tracer as its users do, but with every stack recorded, however many there are.
fn trace(suite: &Suite, port: u16) -> Result<Guarded> {
    let mut command = suite.tool();
    command.args(["--port", &port.to_string(), "--output", "json", "--stack-budget", "1s"]);
    start(suite, &mut command, |log, _| Ok(fs::read_to_string(log)?.contains("Ctrl-C ends it")))
}

/// Starts another watcher.
fn watch(suite: &Suite, peer: Peer, port: u16) -> Result<Guarded> {
    let watcher = start(suite, &mut peer.command(port), |_, pid| peer.has_loaded(pid))?;
    thread::sleep(Peer::SETTLING);
    Ok(watcher)
}

/// Starts a watcher whose words nobody reads, for that would take instructions, and waits until it
/// is ready.
fn start(
    suite: &Suite,
    command: &mut Command,
    is_ready: impl Fn(&Path, u32) -> Result<bool>,
) -> Result<Guarded> {
    let log = suite.directory()?.join("log");
    let mut watcher = start_silently(command, Stdio::null(), &log)?;
    let ready = eventually("it attaches", || {
        watcher.ensure_running()?;
        is_ready(&log, watcher.pid())
    });
    ready.with_context(|| {
        format!("it said: {}", fs::read_to_string(&log).unwrap_or_default().trim())
    })?;
    Ok(watcher)
}
