//! Compares stacks of compiled programs with gdb's backtraces of the same calls.
//!
//! A [`Subject`] is a program of `tests/apps/stacks` in one kind of build. [`compare`] runs it
//! under the tracer and gdb at the same time: gdb stops it at each `connect` and `sendto` and
//! prints a backtrace, and the tracer sees the same call continue.

mod frames;
mod gdb;
mod lines;
mod names;
mod polls;
mod subject;

use anyhow::{Context, Result};

use self::frames::{Comparison, is_alike};
pub use self::frames::{Kind, Share};
use self::gdb::Gdb;
pub use self::subject::{Subject, distinct, subjects};
use crate::program::Program;
use crate::report::{Culprit, Finding, Frame, Report, Stack};
use crate::suite::Suite;

/// The result of comparing one program.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Frames that match, of those in either stack.
    pub frames: Share,
    /// Findings about connections that were only opened: right if the culprit is the innermost
    /// function of the program's own sources, with file and line.
    pub opened_by: Share,
    /// The same for connections that were used.
    pub last_used_by: Share,
    /// The stacks that differ.
    pub differences: Vec<Difference>,
    /// Descriptions of wrong culprits.
    pub misnamed: Vec<String>,
}

/// A traced stack that differs from gdb's backtrace.
#[derive(Debug)]
pub struct Difference {
    /// The place in the program.
    pub place: String,
    /// The kind of difference.
    pub kind: Kind,
    /// Both stacks side by side.
    pub text: String,
}

/// Runs a program through all its places, and compares each stack with gdb's backtrace.
pub fn compare(suite: &Suite, subject: &Subject) -> Result<Outcome> {
    let build = subject.build(suite)?;
    let mut program = Program::start(build.command(suite.port()).env("TOKIO_WORKER_THREADS", "2"))?;
    let trace = suite
        .trace_bare()
        .option("--interval", "500ms")
        .option("--silent-after", "500ms")
        .port(suite.port())
        .pid(program.pid())
        .start()?;
    let listed = program.ok("list")?;
    let places: Vec<String> = listed.word("places")?.split(',').map(str::to_owned).collect();
    let gdb = Gdb::attach(program.pid(), build.debug_directory.as_deref())?;
    let mut visit = |command: &str| -> Result<Visit> {
        let reply = program.ok(command)?;
        Ok(Visit { fd: reply.number("fd")?, cookie: reply.number("cookie")? })
    };
    let named = |place: &str, visit: &Visit, role| {
        let found = trace.finding(|finding: &Finding| visit.is_of(finding, role));
        found.map(drop).with_context(|| format!("{place}: no finding by {role}"))
    };
    // Teaches the tracer how much of this program's stacks to copy.
    let first = places.first().context("the program has no places")?;
    named(first, &visit(first)?, "last_used_by")?;
    let mut visits = Vec::new();
    for place in &places {
        visits.push((place, visit(place)?, visit(&format!("open {place}"))?));
    }
    for (place, used, opened) in &visits {
        // The tracer reads the stack of a request once the connection is silent.
        named(place, used, "last_used_by")?;
        named(place, opened, "opened_by")?;
    }
    let report = trace.stop()?;
    drop(program);
    let calls = gdb.calls()?;
    let told = |call: &str, visit: &Visit| {
        let call = calls.iter().rfind(|c| c.call == call && c.fd == visit.fd);
        call.map(|call| call.frames.as_slice())
    };
    let mut outcome = Outcome::default();
    for (place, used, opened) in visits {
        let connection = report.connection(used.cookie)?;
        for (call, id) in [("connect", &connection.opened_by), ("send", &connection.last_used_by)] {
            let told =
                told(call, &used).with_context(|| format!("gdb saw no {call} in {place}"))?;
            let nothing = Stack {
                quality: "none".into(),
                quality_reason: None,
                language: String::new(),
                frames: Vec::new(),
            };
            let traced = report.stack(id.as_ref()).unwrap_or(&nothing);
            let comparison = Comparison::of(told, traced);
            outcome.frames += comparison.share();
            if !comparison.is_right() {
                outcome.differences.push(Difference {
                    place: place.clone(),
                    kind: comparison.kind(),
                    text: format!("{place}, {call}:\n{comparison}"),
                });
            }
        }
        for (call, role, visit, share) in [
            ("connect", "opened_by", &opened, &mut outcome.opened_by),
            ("send", "last_used_by", &used, &mut outcome.last_used_by),
        ] {
            let told =
                told(call, visit).with_context(|| format!("gdb saw no {call} in {place}"))?;
            let named = visit.culprit(&report, role);
            let is_right = told
                .iter()
                .find(|frame| polls::is_own(frame.file.as_deref()))
                .zip(named.as_ref())
                .is_some_and(|(own, named)| is_alike(own, named));
            share.add(is_right);
            if !is_right {
                let own = told.iter().find(|frame| polls::is_own(frame.file.as_deref()));
                outcome.misnamed.push(format!("{place}, {role}: {named:?}, not {own:?}"));
            }
        }
    }
    Ok(outcome)
}

/// A connection that the program made.
struct Visit {
    fd: u64,
    cookie: u64,
}

impl Visit {
    /// Whether a finding is about this connection's stack in this role.
    fn is_of(&self, finding: &Finding, role: &str) -> bool {
        finding.connections.contains(&self.cookie) && finding.stack_of.as_deref() == Some(role)
    }

    /// The culprit in the report for this connection.
    fn culprit(&self, report: &Report, role: &str) -> Option<Frame> {
        let finding = report.findings.iter().rfind(|finding| self.is_of(finding, role))?;
        let Culprit { function, file, line } = finding.culprit.clone()?;
        Some(Frame { function, module: None, file, line, address: 0 })
    }
}

/// The number of requests per call of the closure that [`requests`] passes.
pub const ROUNDS: u32 = 1000;

/// Calls `measure` with the PID of a tracer and a closure that makes a program send [`ROUNDS`]
/// requests under it, without gdb.
pub fn requests<T>(
    suite: &Suite,
    subject: &Subject,
    measure: impl FnOnce(u32, &mut dyn FnMut() -> Result<()>) -> Result<T>,
) -> Result<T> {
    let build = subject.build(suite)?;
    let mut program = Program::start(&mut build.command(suite.port()))?;
    let trace = suite.trace_bare().port(suite.port()).pid(program.pid()).start()?;
    let listed = program.ok("list")?;
    let place = listed.word("places")?.split(',').next().context("no places")?.to_owned();
    program.ok(&place)?;
    let measured = measure(trace.pid(), &mut || program.ok("requests").map(drop))?;
    trace.stop()?;
    Ok(measured)
}
