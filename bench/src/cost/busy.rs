//! Cost with many idle and some busy connections, and the kernel memory that their stacks take.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Result, ensure};
use harness::cost::Listener;

use super::{
    Bench, Traced,
    crowd::{Crowd, Talk},
    figure::{Row, Spread},
    interval::{Interval, milliseconds},
    resident,
    storms::number,
};
use support::process::pause;

/// Connections that rest, and those that work beside them.
const IDLE: usize = 100_000;
const BUSY: usize = 1000;

/// Requests a second of the busy ones together, and for how long.
const PACE: u32 = 5000;
const DURATION: Duration = Duration::from_secs(20);

/// Intervals in which nothing else is begun.
const SETTLING: usize = 2;

/// Connections whose latest request's stack is kept.
const KEPT: usize = 10_000;

/// How long the programs have to see the last requests of a crowd.
const MOMENT: Duration = Duration::from_secs(1);

/// Measures both.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = working(bench)?;
    rows.extend(kept(bench)?);
    Ok(rows)
}

/// Some connections work while many rest.
fn working(bench: &Bench) -> Result<Vec<Row>> {
    let (crowd, server) = (Crowd::open(IDLE)?, Listener::open()?);
    let (table, port) = ((2 * IDLE).to_string(), server.port().to_string());
    let options = ["--interval", "2s", "--max-connections", &table, "--port", &port];
    let (traced, events) = bench.follow(crowd.port, &options)?;
    let _held = crowd.hold(IDLE, Talk::Nothing)?;
    events.next(IDLE, SETTLING)?;
    let requests = server.converse_in_turn(BUSY, PACE, DURATION)?;
    let meanwhile: Vec<_> =
        events.so_far().filter(|interval| interval.connections >= IDLE + BUSY).collect();
    ensure!(!meanwhile.is_empty(), "The tracer does not see the busy connections.");
    let spread = |of: fn(&Interval) -> Option<u64>| {
        Spread::of(meanwhile.iter().map(of).filter_map(milliseconds).collect())
    };
    let memory = resident(traced.tracer.pid())? as f64 / 1024.0;
    traced.tracer.dismiss();
    let lost = number(&events.report()?, "/events/lost")?;
    let with = format!("{IDLE} connections at rest and {BUSY} at work");
    let rate = requests as f64 / DURATION.as_secs_f64();
    Ok(vec![
        Row::new(format!("requests a second with {with}"), "1/s", Some(Spread::one(rate))),
        Row::new("events lost of that", "events", Some(Spread::one(lost))).at_most(0.0),
        Row::new("reading the state of that", "ms", spread(|of| of.read_us)).at_most(20.0),
        Row::new("taking it in", "ms", spread(|of| of.taken_in_us)),
        Row::new("resident with that", "MiB", Some(Spread::one(memory))),
    ])
}

/// Each connection has made a request, whose stack is kept.
fn kept(bench: &Bench) -> Result<Vec<Row>> {
    let crowd = Crowd::open(KEPT)?;
    let Traced { tracer, .. } = bench.trace(crowd.port, &["--stack-budget", "1s"])?;
    let before = kernel_memory(tracer.pid())?;
    let _held = crowd.hold(KEPT, Talk::Startup)?;
    pause(MOMENT)?;
    let after = kernel_memory(tracer.pid())?;
    let row = |what: String, bytes: u64| {
        Row::new(what, "MiB", Some(Spread::one(bytes as f64 / f64::from(1 << 20))))
    };
    Ok(vec![
        row("kernel memory with no connections".to_owned(), before),
        row(
            format!(
                "kernel memory with {KEPT} connections, the stack of each one's latest request kept"
            ),
            after,
        ),
    ])
}

/// What the kernel says that the maps of a process take.
fn kernel_memory(pid: u32) -> Result<u64> {
    let mut maps = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // A descriptor may have been closed in the meantime.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        let field = |name| {
            text.lines().find_map(|line: &str| line.strip_prefix(name)?.trim().parse::<u64>().ok())
        };
        if let (Some(id), Some(bytes)) = (field("map_id:"), field("memlock:")) {
            maps.insert(id, bytes);
        }
    }
    Ok(maps.values().sum())
}
