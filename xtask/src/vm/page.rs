//! `docs/kernels.md`, made of the results that runs have left behind.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use super::machine::results;
use super::outcome::{Fate, Outcome, Tests};
use super::plan::{Run, Topic};
use crate::process::output;

/// The page's first lines.
const PREFACE: &str = "\
# Kernels

Written by `cargo xtask vm`, which boots Debian's kernels in emulated machines and runs the tests there: the
real binary, a real PostgreSQL, the same tests as on the machine itself. `tests/kernels.toml` names the
packages.

Hooks come in three kinds, best first, and the tracer takes the best that the kernel lets it attach:
**a** BTF tracepoints, **b** fentry and fexit, **c** kprobes. `pgsocktrace doctor` tells which ones were taken
and why better ones were refused. Connections opened and closed are told by BTF tracepoints in all three; the
kinds differ in how bytes sent and received are seen.

With **b**, the answer that a thread waits for at the moment when another tool attaches to the same function or
detaches may be missed: the kernel skips fexit programs for calls under way. Bytes are corrected at the next interval,
and the state is unknown until the next message.

With **c**, the kernel follows only a few calls that send to their return at once: ten, or twice its processors. While so
many threads wait for room to send, on any TCP connection, what others send is not seen; it counts as lost. An answer that
one call reads into several buffers of its own, out of several of the kernel's, leaves the state unknown until the
next message.
";

/// A run and what it came to.
struct Done<'a> {
    run: &'a Run<'a>,
    outcome: Outcome,
    /// The day on which it was made.
    date: String,
}

/// The page about `runs`, whose results lie in `directory`. Those of another kernel than the pinned one do
/// not count.
pub(super) fn write(runs: &[Run<'_>], directory: &Path) -> Result<String> {
    let mut done = Vec::new();
    let mut missing = Vec::new();
    for run in runs {
        match read(run, &results(directory, &run.name))? {
            Some(one) => done.push(one),
            None => missing.push(format!("`{}`", run.name)),
        }
    }
    let mut page = String::from(PREFACE);
    writeln!(page, "\nAll runs: {}.", tally(done.iter().map(|done| &done.outcome)))?;
    if !missing.is_empty() {
        writeln!(page, "Not yet run: {}.", missing.join(", "))?;
    }
    loading(&mut page, &done)?;
    behaviour(&mut page, &done)?;
    configurations(&mut page, &done)?;
    said(&mut page, &done)?;
    Ok(page)
}

fn read<'a>(run: &'a Run<'a>, path: &PathBuf) -> Result<Option<Done<'a>>> {
    let Ok(text) = fs::read(path) else { return Ok(None) };
    let outcome = Outcome::of(&String::from_utf8_lossy(&text));
    if outcome.release.as_deref() != run.kernel.pinned().map(|(release, _)| release) {
        return Ok(None);
    }
    let date = output(Command::new("date").args(["-u", "+%Y-%m-%d", "-r"]).arg(path))?;
    Ok(Some(Done { run, outcome, date: date.trim().to_owned() }))
}

/// What loads where, and whether all hooks tell the same of one history.
fn loading(page: &mut String, done: &[Done<'_>]) -> Result<()> {
    writeln!(page, "\n## Hooks\n")?;
    writeln!(
        page,
        "Each kind is loaded and attached, and where there are several, one history of connections"
    )?;
    writeln!(page, "is watched with all of them at once: they have to report the same.\n")?;
    writeln!(page, "| Linux | Debian's version | hooks that work | tests | date |")?;
    writeln!(page, "|---|---|---|---|---|")?;
    for Done { run, outcome, date } in about_loading(done) {
        let flavours = match run.kernel.flavours.join(", ") {
            none if none.is_empty() => "none: refused".into(),
            some => some,
        };
        let (release, version) = run.kernel.pinned().unwrap_or_default();
        writeln!(page, "| {release} | {version} | {flavours} | {} | {date} |", tally([outcome]))?;
    }
    Ok(())
}

fn about_loading<'a>(done: &'a [Done<'a>]) -> impl Iterator<Item = &'a Done<'a>> {
    done.iter().filter(|done| done.run.topic == Topic::Loading)
}

/// The tests that are run on the machine itself as well.
fn behaviour(page: &mut String, done: &[Done<'_>]) -> Result<()> {
    writeln!(
        page,
        "\n## Behaviour\n\nTests passed / failed / skipped, by target in `tests/tests`.\n"
    )?;
    writeln!(page, "| Linux | hooks | tests | date |")?;
    writeln!(page, "|---|---|---|---|")?;
    for Done { run, outcome, date } in done {
        let Topic::Behaviour(flavour) = &run.topic else { continue };
        let counts: Vec<String> = outcome.steps.iter().map(counts).collect();
        writeln!(page, "| {} | {flavour} | {} | {date} |", run.kernel.name, counts.join(", "))?;
    }
    Ok(())
}

/// Kernels that were booted or set up in other ways, and users without privileges.
fn configurations(page: &mut String, done: &[Done<'_>]) -> Result<()> {
    writeln!(page, "\n## Configurations\n")?;
    writeln!(page, "| Linux | configured | works, or is refused with the mend | date |")?;
    writeln!(page, "|---|---|---|---|")?;
    for Done { run, outcome, date } in done {
        let Topic::Configuration(words) = run.topic else { continue };
        let tests = outcome.steps.iter().flat_map(|step| &step.fates);
        let names: Vec<String> = tests
            .map(|(name, fate)| match fate {
                Fate::Passed => format!("`{name}`"),
                Fate::Failed => format!("**`{name}` failed**"),
                Fate::Skipped => format!("`{name}` skipped"),
            })
            .collect();
        writeln!(page, "| {} | {words} | {} | {date} |", run.kernel.name, names.join(", "))?;
    }
    Ok(())
}

/// What the tool itself says: its refusals, and what `doctor` finds.
fn said(page: &mut String, done: &[Done<'_>]) -> Result<()> {
    let is_configured = |done: &&Done<'_>| matches!(done.run.topic, Topic::Configuration(_));
    let refusals = done.iter().filter(is_configured).flat_map(|done| &done.outcome.steps);
    writeln!(page, "\nThe refusals:\n")?;
    for note in refusals.flat_map(|step| &step.notes).collect::<BTreeSet<_>>() {
        writeln!(page, "- {note}")?;
    }
    for Done { run, outcome, .. } in about_loading(done) {
        let notes = outcome.steps.iter().flat_map(|step| &step.notes);
        writeln!(page, "\n## On Linux {}\n\n```", run.kernel.name)?;
        for note in notes {
            writeln!(page, "{}", note.trim_end())?;
        }
        writeln!(page, "```")?;
    }
    Ok(())
}

fn counts(step: &Tests) -> String {
    let [passed, failed, skipped] =
        [Fate::Passed, Fate::Failed, Fate::Skipped].map(|f| step.count(f));
    format!("{} {passed} / {failed} / {skipped}", step.name)
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
