//! Compares stacks of Go programs with what the Go runtime reports for the same calls.
//!
//! The tests use three Go releases: the oldest and the newest on this machine, and one between.

use anyhow::{Context, Result, ensure};
use harness::golang::{GoBuild, GoProgram, Toolchain, observe, shapes};
use harness::{Need, Suite, Test, Trace, target, test};

/// The builds that every release is tested with: those that hide different parts of a binary.
const PLAIN: GoBuild = GoBuild::PLAIN;
const BARE: GoBuild = GoBuild { stripped: true, headless: true, ..PLAIN };
const HIDDEN: GoBuild = GoBuild { cgo: true, pie: true, ..BARE };

pub(crate) fn tests() -> Vec<Test> {
    let mut all: Vec<Test> = Vec::new();
    for (name, pick) in RELEASES {
        for how in [PLAIN, BARE, HIDDEN] {
            let exact = test(format!("{name}: {how}"), move |suite| exact(suite, pick, how));
            all.push(exact.needs(Need::GoReleases));
        }
    }
    all.push(test("a_stack_longer_than_any_copy", long).needs(Need::Go));
    all.push(test("a_stack_longer_than_the_first_copy", growing).needs(Need::Go));
    all
}

/// Picks an index among this many releases.
type Pick = fn(usize) -> usize;

const RELEASES: [(&str, Pick); 3] = [
    ("oldest_release", |_| 0),
    ("release_between", |count| count / 2),
    ("newest_release", |count| count.saturating_sub(1)),
];

fn start(suite: &Suite, pick: Pick, how: GoBuild) -> Result<(Toolchain, GoProgram, Trace)> {
    let all = Toolchain::all(&target());
    let toolchain = all.get(pick(all.len())).context("no Go toolchain")?.clone();
    let path = suite.directory()?.join("go");
    toolchain.build(how, &GoProgram::source(), &target().join("go"), &path)?;
    let program = GoProgram::start(&path, suite.port())?;
    let trace = suite.trace().pid(program.pid()).start()?;
    Ok((toolchain, program, trace))
}

/// Every call shape, as opener and as last user, has the stack that the runtime reports.
fn exact(suite: &Suite, pick: Pick, how: GoBuild) -> Result<()> {
    let (toolchain, mut program, trace) = start(suite, pick, how)?;
    let shapes = shapes(&toolchain, how);
    let seen = observe(&mut program, &shapes, trace)?;
    let version = toolchain.version;
    ensure!(seen.wrong.is_empty(), "Go {version}: {:?}\n{}", seen.frames, seen.wrong);
    let calls = 2 * u32::try_from(shapes.len())?;
    ensure!(seen.opened_by == (calls, calls), "{:?} of {calls}", seen.opened_by);
    ensure!(seen.last_used_by == (calls, calls), "{:?} of {calls}", seen.last_used_by);
    Ok(())
}

/// A very deep stack has the right innermost frames, and is marked as truncated.
fn long(suite: &Suite) -> Result<()> {
    let (_, mut program, trace) = start(suite, |_| 0, PLAIN)?;
    let opened = program.open("deep")?;
    let report = trace.stop()?;
    let connection = report.connection(opened.cookie)?;
    assert_eq!(connection.goroutine, Some(opened.witness.goroutine));
    let stack = report.stack(connection.opened_by.as_ref())?;
    assert_eq!(stack.quality, "truncated");
    let compared = opened.witness.compare(stack);
    ensure!(compared.names_the_caller && compared.right > 10, "{}", compared.text);
    ensure!(compared.right == compared.traced, "{}", compared.text);
    Ok(())
}

/// A truncated stack makes the tracer copy more of that process's later stacks.
fn growing(suite: &Suite) -> Result<()> {
    let (_, mut program, trace) = start(suite, |_| 0, PLAIN)?;
    let first = program.open("recursion")?;
    trace.let_intervals_pass(2);
    let later = program.open("recursion")?;
    let report = trace.stop()?;
    let quality = |cookie: u64| -> Result<&str> {
        let connection = report.connection(cookie)?;
        Ok(&report.stack(connection.opened_by.as_ref())?.quality)
    };
    assert_eq!((quality(first.cookie)?, quality(later.cookie)?), ("truncated", "complete"));
    Ok(())
}
