//! Connection storms, requests at a steady rate, and the time that attaching takes.

use std::time::Duration;

use anyhow::{Context as _, Result};
use harness::cost::Listener;
use serde_json::Value;

use super::{
    Bench, Traced,
    figure::{Row, Section, Spread},
};

/// How long the tracer may take to write its report.
const REPORT_LIMIT: Duration = Duration::from_secs(30);

/// How often each thing is measured.
const ROUNDS: usize = 5;

/// How long a storm lasts.
const STORM: Duration = Duration::from_secs(3);

/// How many requests a second are to have their stacks recorded.
const PACE: u32 = 10_000;

/// Measures them all.
pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let mut rows = Vec::new();
    for threads in [1, 2, 4] {
        let (mut rates, mut lost) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let server = Listener::open()?;
            let traced = bench.trace(server.port(), &[])?;
            rates.push(server.storm(threads, STORM)?.rate());
            lost.push(number(&report(traced)?, "/events/lost")?);
        }
        let threads =
            if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") };
        rows.push(Row::new(format!("connections a second, {threads}"), "1/s", Spread::of(rates)));
        let lost = Row::new(format!("events lost of that, {threads}"), "events", Spread::of(lost));
        rows.push(lost.at_most(0.0));
    }
    let (mut cores, mut recorded) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let server = Listener::open()?;
        let traced = bench.trace(server.port(), &[])?;
        server.converse_at(PACE, STORM)?;
        let report = report(traced)?;
        cores.push(number(&report, "/cost/kernel_cores")? * 100.0);
        let copies = |which: &str| number(&report, &format!("/stack_copies/{which}"));
        let skipped = copies("over_budget")? + copies("no_slot")? + copies("unreadable")?;
        recorded.push(skipped / (copies("recorded")? + skipped) * 100.0);
    }
    let title = format!("{PACE} requests and answers a second");
    rows.push(
        Row::new(format!("{title}: of a core in the kernel"), "%", Spread::of(cores)).at_most(1.5),
    );
    rows.push(
        Row::new(format!("{title}: stacks not recorded"), "%", Spread::of(recorded)).at_most(0.0),
    );
    let mut starts = Vec::new();
    for _ in 0..ROUNDS {
        starts.push(bench.trace(1, &[])?.took.as_secs_f64() * 1000.0);
    }
    rows.push(Row::new("from start to attached", "ms", Spread::of(starts)).at_most(300.0));
    Ok(Section {
        title: "Storms and starts",
        how: format!(
            "Connections to a listener on loopback, opened and reset in a loop for {} s by so many threads, \
             {ROUNDS} times each; {PACE} requests a second on one connection, each answered; the time until \
             the tracer says that it traces. Bounds are those of all rounds.",
            STORM.as_secs()
        ),
        rows,
    })
}

/// Ends a trace and reads its report.
pub(super) fn report(mut traced: Traced) -> Result<Value> {
    traced.tracer.dismiss();
    let stdout = traced.tracer.child().stdout.take().context("The tracer has no output.")?;
    let report = serde_json::from_reader(stdout)?;
    traced.tracer.wait(REPORT_LIMIT)?;
    Ok(report)
}

pub(super) fn number(report: &Value, pointer: &str) -> Result<f64> {
    let number = report.pointer(pointer).and_then(Value::as_f64);
    number.with_context(|| format!("The report has no {pointer}."))
}
