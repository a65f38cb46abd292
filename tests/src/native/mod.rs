//! Stacks of compiled programs, compared with what gdb sees at the very same calls.
//!
//! A [`Subject`] is a program of `tests/apps/stacks` in one way of building it. [`compare`] runs it under
//! the tracer and under gdb at the same time: gdb stops it as it enters `connect` and `sendto` and
//! tells its backtrace, the tracer sees the same call go on.

mod frames;
mod gdb;
mod subject;

use std::process::Command;

use anyhow::{Context, Result, ensure};

pub use self::frames::Share;
use self::frames::{Comparison, Witness};
use self::gdb::Gdb;
pub use self::subject::{Subject, subjects};
use crate::program::Program;
use crate::report::{Finding, Stack};
use crate::suite::Suite;

/// What came out of one program.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Frames that both tell alike, of those that either tells.
    pub frames: Share,
    /// Connect stacks whose culprit is the innermost function of the program's own sources.
    pub opened_by: Share,
    /// The same of the last request's stacks.
    pub last_used_by: Share,
    /// Every difference, in words.
    pub differences: Vec<String>,
}

/// Runs a program through all its places, and compares each stack with gdb's.
///
/// # Errors
///
/// When the program cannot be built or run, or a call has no witness.
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
    let mut visits = Vec::new();
    for place in &places {
        let reply = program.ok(place)?;
        visits.push((place, reply.number("fd")?, reply.number("cookie")?));
    }
    for (place, _, cookie) in &visits {
        let about = |finding: &Finding| finding.connections.contains(cookie);
        // A stack that a request left behind is looked at once the connection is silent.
        trace.finding(about).with_context(|| format!("{place} does not fall silent"))?;
    }
    let report = trace.stop()?;
    drop(program);
    let calls = gdb.calls()?;
    ensure!(!visits.is_empty(), "the program has no places");

    let mut outcome = Outcome::default();
    for (place, fd, cookie) in visits {
        let connection = report.connection(cookie)?;
        for (call, id) in [("connect", &connection.opened_by), ("send", &connection.last_used_by)] {
            let told = calls.iter().rfind(|c| c.call == call && c.fd == fd);
            let told = &told.with_context(|| format!("gdb saw no {call} in {place}"))?.frames;
            let nothing =
                Stack { quality: "none".into(), language: String::new(), frames: Vec::new() };
            let traced = report.stack(id.as_ref()).unwrap_or(&nothing);
            let comparison = Comparison::of(told, traced);
            outcome.frames += comparison.share();
            let named = match call {
                "connect" => &mut outcome.opened_by,
                _ => &mut outcome.last_used_by,
            };
            named.add(comparison.names_the_culprit(id.as_ref(), &report));
            if !comparison.is_right() {
                outcome.differences.push(format!("{place}, {call}:\n{comparison}"));
            }
        }
    }
    Ok(outcome)
}

/// The first line that a compiler prints about itself.
pub(crate) fn version(program: &str) -> Result<String> {
    let output =
        Command::new(program).arg("--version").output().with_context(|| program.to_owned())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Whether a frame that gdb tells is of the program's own sources.
fn is_own(frame: &Witness) -> bool {
    frame.file.as_deref().is_some_and(|file| file.contains("/apps/stacks/"))
}
