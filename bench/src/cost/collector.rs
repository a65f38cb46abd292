//! CPU time and memory of the collector with many connections.

use std::time::Duration;

use anyhow::Result;

use super::{
    Bench, Traced, busy, cpu_time,
    crowd::{Crowd, EACH, Talk},
    figure::{Row, Section, Spread},
    interval::{Interval, milliseconds},
    resident,
};
use support::process::pause;

/// Connections that are held.
const SIZES: [usize; 4] = [0, 10_000, 20_000, 100_000];

/// Intervals that are measured.
const INTERVALS: usize = 7;

/// How long an empty tracer is watched.
const IDLE: Duration = Duration::from_secs(60);

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
             listeners on loopback. CPU time is the collector's own count, of {INTERVALS} intervals; \
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
    let options = ["--interval", "2s", "--max-connections", &table];
    let (Traced { tracer, .. }, events) = bench.follow(crowd.port, &options)?;
    let _held = crowd.hold(size, Talk::Nothing)?;
    let intervals = events.next(size, INTERVALS)?;
    // The first one still takes in what has just been opened.
    let spread = |of: fn(&Interval) -> Option<u64>| {
        let values = intervals[1..].iter().map(of).filter_map(milliseconds);
        Spread::of(values.collect())
    };
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
            Row::new(format!("reading the state of {with}"), "ms", spread(|of| of.read_us))
                .at_most(20.0),
        );
        rows.push(Row::new(format!("taking it in, {with}"), "ms", spread(|of| of.taken_in_us)));
    }
    if size == 20_000 {
        let listing = spread(|of| of.list_us);
        rows.push(
            Row::new(format!("the kernel's list of {size} sockets"), "ms", listing).at_most(30.0),
        );
        rows.push(Row::new(format!("who holds {size} sockets"), "ms", spread(|of| of.holders_us)));
    }
    Ok(rows)
}
