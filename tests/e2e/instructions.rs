//! Instructions of the kernel programs per event. For a virtual machine that emulates one
//! instruction per nanosecond of its time: there the kernel's run time of a program, in
//! nanoseconds, is its number of instructions.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::cost::{self, EVENTS, Load, Statistics};
use harness::{Suite, Test, Trace, test};

/// The numbers of instructions in an earlier run.
const BEFORE: &str = include_str!("../instructions.toml");

/// The tolerance in per cent: the kernel's own share depends on its release.
const TOLERANCE: f64 = 5.0;

/// A small load, because emulation is slow.
const LOAD: Load = Load { events: 2000, storm: Duration::from_millis(200) };

pub(crate) fn tests() -> Vec<Test> {
    vec![test("no_event_takes_more_than_it_did", no_event_takes_more_than_it_did)]
}

fn no_event_takes_more_than_it_did(suite: &Suite) -> Result<()> {
    let before: BTreeMap<String, f64> = toml::from_str(BEFORE)?;
    let statistics = Statistics::on()?;
    let watch = |port| suite.trace().port(port).option("--stack-budget", "1s").start();
    let costs = cost::measure(LOAD, &statistics, watch, Trace::pid)?;
    let (mut more, mut told) = (Vec::new(), String::new());
    for (event, cost) in EVENTS.iter().zip(costs) {
        let cost = cost.with_context(|| format!("{event}: no program ran"))?;
        let before = before.get(*event).with_context(|| format!("{event}: not known before"))?;
        told += &format!("\nnote: {event}: {cost:.0} instructions, {before} before");
        if cost > before * (1.0 + TOLERANCE / 100.0) {
            more.push(*event);
        }
    }
    println!("{told}");
    ensure!(more.is_empty(), "these take more instructions than before: {}", more.join("; "));
    Ok(())
}
