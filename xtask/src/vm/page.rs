//! `docs/kernels.md`, made of a run of everything.

use std::fmt::Write as _;

use anyhow::Result;

use super::kernels::Unpacked;
use super::outcome::{Fate, Outcome, Tests};
use super::plan::{Run, Topic};

/// The page's first lines.
const PREFACE: &str = "\
# Kernels

Written by `cargo xtask vm`, which boots Debian's kernels in emulated machines and runs the tests there: the
real binary, a real PostgreSQL, the same tests as on the machine itself. `tests/kernels.toml` names the
packages.

Hooks come in three kinds, best first, and the tracer takes the best that the kernel lets it attach:
**a** BTF tracepoints, **b** fentry and fexit, **c** kprobes. `pgsocktrace doctor` tells which ones were taken
and why better ones were refused.
";

/// A run that was made.
pub(super) type Done<'a> = (&'a Run<'a>, &'a Unpacked, Outcome);

/// The page.
pub(super) fn write(done: &[Done<'_>], date: &str) -> Result<String> {
    let mut page = String::from(PREFACE);
    writeln!(page, "\nLast run: {date}, {}.", tally(done.iter().map(|(_, _, outcome)| outcome)))?;
    loading(&mut page, done)?;
    behaviour(&mut page, done)?;
    configurations(&mut page, done)?;
    Ok(page)
}

/// What loads where, and what all hooks tell of one history.
fn loading(page: &mut String, done: &[Done<'_>]) -> Result<()> {
    writeln!(page, "\n## Hooks\n")?;
    writeln!(page, "| Linux | Debian's version | hooks that work | tests |")?;
    writeln!(page, "|---|---|---|---|")?;
    for (run, kernel, outcome) in done.iter().filter(|(run, ..)| run.topic == Topic::Loading) {
        let flavours = match run.kernel.flavours.join(", ") {
            none if none.is_empty() => "none: refused".into(),
            some => some,
        };
        let (release, version) = (&kernel.release, &kernel.version);
        writeln!(page, "| {release} | {version} | {flavours} | {} |", tally([outcome]))?;
    }
    for (run, _, outcome) in done.iter().filter(|(run, ..)| run.topic == Topic::Loading) {
        let notes: Vec<&String> = outcome.steps.iter().flat_map(|step| &step.notes).collect();
        writeln!(page, "\nWhat it says on Linux {}:\n\n```", run.kernel.name)?;
        for note in notes {
            writeln!(page, "{note}")?;
        }
        writeln!(page, "```")?;
    }
    Ok(())
}

/// The tests that are run on the machine itself as well.
fn behaviour(page: &mut String, done: &[Done<'_>]) -> Result<()> {
    writeln!(page, "\n## Behaviour\n\nPassed / failed / skipped.\n")?;
    let mut header = false;
    for (run, kernel, outcome) in done {
        let Topic::Behaviour(flavour) = &run.topic else { continue };
        if !header {
            header = true;
            let names: Vec<&str> = outcome.steps.iter().map(|step| step.name.as_str()).collect();
            writeln!(page, "| Linux | hooks | {} |", names.join(" | "))?;
            writeln!(page, "|---|---|{}", "---|".repeat(names.len()))?;
        }
        let counts: Vec<String> = outcome.steps.iter().map(counts).collect();
        writeln!(page, "| {} | {flavour} | {} |", kernel.release, counts.join(" | "))?;
    }
    Ok(())
}

/// Kernels that were booted or set up in other ways, and users without privileges.
fn configurations(page: &mut String, done: &[Done<'_>]) -> Result<()> {
    writeln!(page, "\n## Configurations\n")?;
    writeln!(page, "| Linux | booted with | tests | |")?;
    writeln!(page, "|---|---|---|---|")?;
    for (run, kernel, outcome) in done {
        let Topic::Configuration(words) = run.topic else { continue };
        let tests = outcome.steps.iter().flat_map(|step| &step.fates);
        let names: Vec<String> = tests
            .map(|(name, fate)| match fate {
                Fate::Passed => format!("`{name}`"),
                Fate::Failed => format!("**`{name}` failed**"),
                Fate::Skipped => format!("`{name}` skipped"),
            })
            .collect();
        let tally = tally([outcome]);
        writeln!(page, "| {} | {words} | {} | {tally} |", kernel.release, names.join(", "))?;
    }
    Ok(())
}

fn counts(step: &Tests) -> String {
    let [passed, failed, skipped] =
        [Fate::Passed, Fate::Failed, Fate::Skipped].map(|f| step.count(f));
    format!("{passed} / {failed} / {skipped}")
}

/// Counts of many runs, in words.
pub(super) fn tally<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> String {
    let [mut passed, mut failed, mut skipped] = [0; 3];
    for outcome in outcomes {
        passed += outcome.count(Fate::Passed);
        failed += outcome.count(Fate::Failed);
        skipped += outcome.count(Fate::Skipped);
    }
    format!("{passed} passed, {failed} failed, {skipped} skipped")
}
