//! What the collector takes with many connections.

use std::{
    sync::mpsc::Receiver,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{
    Bench, Traced, busy, cpu_time,
    crowd::{Crowd, EACH, Talk},
    figure::{Row, Section, Spread},
    resident,
};
use crate::process::pause;

/// Connections that are held.
const SIZES: [usize; 4] = [0, 10_000, 20_000, 100_000];

/// Intervals that are measured.
const INTERVALS: usize = 7;

/// How long an empty tracer is watched.
const IDLE: Duration = Duration::from_secs(60);

/// How long it may take until all connections are known.
const PATIENCE: Duration = Duration::from_secs(120);

/// What an interval's work took, in milliseconds of CPU time, as the tracer's debug log tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Interval {
    pub(super) connections: usize,
    pub(super) reading: f64,
    pub(super) applying: f64,
    pub(super) listing: f64,
    pub(super) holding: f64,
}

/// Measures with no, some and many connections.
pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let mut rows = vec![idle(bench)?];
    for size in SIZES {
        rows.extend(held(bench, size)?);
    }
    rows.extend(busy::measure(bench)?);
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
    let _held = crowd.hold(size, Talk::Nothing)?;
    let intervals = intervals(&told, size, INTERVALS)?;
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

/// The next intervals in which the tracer sees so many connections.
pub(super) fn intervals(
    told: &Receiver<String>,
    connections: usize,
    count: usize,
) -> Result<Vec<Interval>> {
    let end = Instant::now() + PATIENCE;
    let mut intervals = Vec::new();
    while intervals.len() < count {
        let left = end.saturating_duration_since(Instant::now());
        let line = told.recv_timeout(left).context("The tracer does not see all connections.")?;
        intervals.extend(interval(&line).filter(|interval| interval.connections >= connections));
    }
    Ok(intervals)
}

/// Reads `… CPU time: 10 connections read in 1.5ms and taken in in 2ms, 10 sockets listed in 3ms, their
/// holders found in 4ms`.
pub(super) fn interval(line: &str) -> Option<Interval> {
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
}
