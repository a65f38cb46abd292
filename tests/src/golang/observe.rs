//! Runs the Go program through every kind of call, and compares the traced stacks with those that
//! the Go runtime reports.

use anyhow::{Context, Result};

use super::{Call, GoBuild, GoProgram, SHAPES, Toolchain};
use crate::report::{Connection, Report};
use crate::trace::Trace;

/// The result of a comparison; each pair is (right, total).
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// Frames that are the same.
    pub frames: (u32, u32),
    /// Connects whose stack names the right caller.
    pub opened_by: (u32, u32),
    /// Last requests whose stack names the right caller.
    pub last_used_by: (u32, u32),
    /// Descriptions of all differences; empty if there are none.
    pub wrong: String,
}

/// The calls on one connection.
struct Calls {
    shape: &'static str,
    opened: Call,
    used: Call,
}

/// The shapes that a program in this build has, except "deep".
#[must_use]
pub fn shapes(toolchain: &Toolchain, how: GoBuild) -> Vec<&'static str> {
    let ranges = (toolchain.release >= (1, 23)).then_some("range");
    let calls_back = how.cgo.then_some("callback");
    SHAPES.into_iter().chain(ranges).chain(calls_back).collect()
}

/// Makes the program connect and send requests in each shape, ends the trace and compares.
pub fn observe(
    program: &mut GoProgram,
    shapes: &[&'static str],
    trace: Trace,
) -> Result<Observation> {
    // Teaches the tracer how much of this program's stacks to copy.
    let first = program.open("recursion")?;
    trace.let_intervals_pass(2);
    let mut all = Vec::new();
    for shape in shapes {
        let opened = program.open(shape)?;
        let used = program.request(opened.cookie, shape)?;
        all.push(Calls { shape, opened, used });
        let opened = program.open(shape)?;
        let used = program.send(opened.cookie, shape)?;
        all.push(Calls { shape, opened, used });
    }
    // The tracer reads the stack of the last request once the connection is silent.
    trace.let_intervals_pass(5);
    let report = trace.stop()?;
    let mut seen = Observation::default();
    report.connection(first.cookie)?;
    for calls in &all {
        let connection = report.connection(calls.opened.cookie)?;
        seen.add_open(calls, connection, &report)?;
        seen.add_use(calls, connection, &report)?;
    }
    Ok(seen)
}

impl Observation {
    fn add_open(&mut self, calls: &Calls, connection: &Connection, report: &Report) -> Result<()> {
        let what = format!("{} opened", calls.shape);
        let (id, goroutine) = (connection.opened_by.as_ref(), connection.goroutine);
        let right = self.add(&what, &calls.opened, id, goroutine, report)?;
        add(&mut self.opened_by, (u32::from(right), 1));
        Ok(())
    }

    fn add_use(&mut self, calls: &Calls, connection: &Connection, report: &Report) -> Result<()> {
        let what = format!("{} used", calls.shape);
        let (id, goroutine) = (connection.last_used_by.as_ref(), connection.last_used_goroutine);
        let right = self.add(&what, &calls.used, id, goroutine, report)?;
        add(&mut self.last_used_by, (u32::from(right), 1));
        Ok(())
    }

    /// Compares one stack with the runtime's; returns whether it names the right caller.
    fn add(
        &mut self,
        what: &str,
        call: &Call,
        id: Option<&String>,
        goroutine: Option<u64>,
        report: &Report,
    ) -> Result<bool> {
        if goroutine != Some(call.witness.goroutine) {
            let number = call.witness.goroutine;
            self.wrong.push_str(&format!("{what} by goroutine {number}, not {goroutine:?}\n"));
        }
        let Some(id) = id else {
            add(&mut self.frames, (0, call.witness.len()));
            self.wrong.push_str(&format!("{what}: no stack\n"));
            return Ok(false);
        };
        let stack = report.stack(Some(id)).with_context(|| what.to_owned())?;
        let compared = call.witness.compare(stack);
        add(&mut self.frames, (compared.right, compared.of));
        if !compared.is_exact() || stack.quality != "complete" || stack.language != "go" {
            self.wrong.push_str(&format!("{what}: {}", compared.text));
        }
        Ok(compared.names_the_caller)
    }
}

fn add(sum: &mut (u32, u32), share: (u32, u32)) {
    sum.0 += share.0;
    sum.1 += share.1;
}
