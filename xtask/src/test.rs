//! `cargo xtask test`: the tests, and one honest line about them.
//!
//! cargo lists the test programs as JSON, each program writes JSON about its tests, and what is
//! printed for people is made of that here. cargo-nextest would do most of it, but takes minutes to
//! build and starts a process for each test, with a PostgreSQL for each.

mod listen;
mod programs;
mod tally;

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Result, bail, ensure};
use support::{
    results::{ARGUMENTS, Fate, Line, MOST_LATE, UNLOCK},
    workspace::{BINARY, cargo},
};

use self::{
    listen::listen,
    programs::{Program, compile},
    tally::Tally,
};
use crate::{build, dist, setup};

/// Chooses suites of the end-to-end tests, see `tests::suites`.
pub(crate) const SUITES: &str = "LEAK_TESTS_SUITES";
/// How many seconds the end-to-end tests wait for anything, see `tests::process`.
pub(crate) const PATIENCE: &str = "LEAK_TESTS_BOUND";

/// The suite of all tests that need neither root nor set-up.
const UNIT: &str = "unit";

/// The longest time in which no test ends and none prints anything: what takes longer hangs.
const LONGEST_SILENCE: Duration = Duration::from_secs(15 * 60);

/// Runs all tests or those of one suite; `arguments` are handed to the test programs.
pub(crate) fn run(root: &Path, suite: Option<&str>, arguments: &[String]) -> Result<()> {
    let is_unit = suite == Some(UNIT);
    let mut environment = Vec::new();
    if !is_unit {
        setup::run(root, setup::EVERYTHING)?;
        environment.push((BINARY, build::run(root)?));
        environment.push(("PGSOCKTRACE_IMAGE", dist::image(root)?));
    }
    let all = compile(root)?;
    let chosen: Vec<&Program> = match suite {
        None => all.iter().collect(),
        Some(UNIT) => all.iter().filter(|program| !program.is_end_to_end()).collect(),
        Some(name) => {
            let own: Vec<_> = all.iter().filter(|program| program.is_target(name)).collect();
            // Any other name is that of a suite, which the end-to-end tests know.
            let e2e = all.iter().filter(|program| program.is_end_to_end());
            if own.is_empty() { e2e.collect() } else { own }
        }
    };
    ensure!(!chosen.is_empty(), "There are no such tests.");
    let command = |program: &Program| {
        let mut command = program.command();
        command.envs(environment.iter().map(|(name, path)| (name, path)));
        if program.is_end_to_end() {
            if let Some(suite) = suite {
                command.env(SUITES, suite);
            }
        } else {
            command.env(UNLOCK.0, UNLOCK.1);
        }
        command.args(ARGUMENTS);
        command
    };

    let mut tally = Tally::default();
    for program in chosen {
        println!("\n== {} ==", program.name());
        run_program(command(program).args(arguments), program, &mut tally)?;
    }
    if suite.is_none() && arguments.is_empty() {
        examples_in_documentation(root, &mut tally)?;
    }
    print!("{}", tally.failures());
    let late = late(&mut tally, command)?;
    println!("\n{tally}");
    if !late.is_empty() {
        println!("{} late, and passed alone: {}", late.len(), late.join(", "));
    }
    if tally.has_failed() {
        bail!("Tests failed.");
    }
    ensure!(tally.has_run(), "No test was run.");
    Ok(())
}

/// Runs one test program to its end, prints what becomes of its tests, and counts it.
fn run_program<'a>(
    command: &mut Command,
    program: &'a Program,
    tally: &mut Tally<'a>,
) -> Result<()> {
    let mut reported_failure = false;
    let status = listen(command, LONGEST_SILENCE, |line| match Line::read(line) {
        Line::Ended { name, fate, output } => {
            let word = match fate {
                Fate::Passed => "ok",
                Fate::Failed => "FAILED",
                Fate::Skipped => "ignored",
            };
            println!("test {name} ... {word}");
            reported_failure |= fate == Fate::Failed;
            tally.count(program, name, fate, &output);
        }
        Line::Text(text) => println!("{text}"),
        Line::Started(_) | Line::Other => {}
    })?;
    if !status.success() && !reported_failure {
        tally.broke_off(program, &status.to_string());
    }
    Ok(())
}

/// Compiles and runs the examples in documentation. rustdoc reports them for people alone, so they
/// count as one test.
fn examples_in_documentation(root: &Path, tally: &mut Tally<'_>) -> Result<()> {
    println!("\n== examples in documentation ==");
    let status = cargo(root).args(["test", "--locked", "--doc", "--quiet"]).status()?;
    tally.count_documentation(status.success());
    Ok(())
}

/// Runs failed tests once more, each alone: what fails again is a defect of the project, what
/// passes was late on a busy machine. More than a few are not late, and neither is a program that
/// broke off. Those that passed are returned, and no longer count as failed.
fn late(tally: &mut Tally<'_>, command: impl Fn(&Program) -> Command) -> Result<Vec<String>> {
    let Some(failed) = tally.may_be_late(MOST_LATE) else { return Ok(Vec::new()) };
    let mut late = Vec::new();
    for (program, name) in failed {
        println!("\nOnce more, and alone: {name}");
        let mut again = Tally::default();
        run_program(command(program).args(["--exact", &name]), program, &mut again)?;
        if again.has_failed() || !again.has_run() {
            return Ok(Vec::new());
        }
        late.push(name);
    }
    tally.forgive();
    Ok(late)
}
