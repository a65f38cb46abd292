//! Writes `docs/kernels.md` from the outcomes of all runs.

use std::{collections::BTreeSet, fmt::Write as _};

use anyhow::Result;

use super::kernels::Unpacked;
use super::outcome::{Ending, Fate, Outcome, Tests};
use super::plan::{Run, Topic};

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

With any of them, a kernel that preempts itself, as those from 7.0 on do, now and then skips a run: a thread was preempted inside
a program, and meanwhile another one would have run the same program on the same processor. The report counts such runs,
whatever they were about. Bytes are corrected at the next interval, and the state is unknown until the next message.

With **b**, the answer that a thread waits for at the moment when another tool attaches to the same function or
detaches may be missed: the kernel skips fexit programs for calls under way. Bytes are corrected at the next interval,
and the state is unknown until the next message.

With **c**, the kernel follows only a few calls that send to their return at once: ten, or twice its processors. While so
many threads wait for room to send, on any TCP connection, what others send is not seen; it counts as lost. An answer that
one call reads into several buffers of its own, out of several of the kernel's, leaves the state unknown until the
next message.
";

/// A run and its outcome.
pub(super) struct Done<'a> {
    pub(super) run: &'a Run<'a>,
    pub(super) kernel: &'a Unpacked,
    pub(super) outcome: Outcome,
    /// The date on which it ended, in UTC.
    pub(super) date: String,
}

/// Renders the page about these runs.
pub(super) fn write(done: &[Done<'_>]) -> Result<String> {
    let mut page = String::from(PREFACE);
    writeln!(page, "\nAll runs: {}.", tally(done.iter().map(|done| &done.outcome)))?;
    loading(&mut page, done)?;
    behaviour(&mut page, done)?;
    configurations(&mut page, done)?;
    said(&mut page, done)?;
    Ok(page)
}

/// The results of a run's tests, and the reason if the run was cut short.
fn ended(tests: String, outcome: &Outcome) -> String {
    match outcome.ending {
        Ending::Whole => tests,
        ending => format!("{tests} **did not end: {ending}**"),
    }
}

/// Which hooks load on which kernel, and whether all hooks report the same history.
fn loading(page: &mut String, done: &[Done<'_>]) -> Result<()> {
    writeln!(page, "\n## Hooks\n")?;
    writeln!(
        page,
        "Each kind is loaded and attached, and where there are several, one history of connections"
    )?;
    writeln!(page, "is watched with all of them at once: they have to report the same.\n")?;
    writeln!(page, "| Linux | Debian's version | hooks that work | tests | date |")?;
    writeln!(page, "|---|---|---|---|---|")?;
    for Done { run, kernel, outcome, date } in about_loading(done) {
        let flavours = match run.kernel.flavours.join(", ") {
            none if none.is_empty() => "none: refused".into(),
            some => some,
        };
        let Unpacked { release, version, .. } = kernel;
        let tests = ended(tally([outcome]), outcome);
        writeln!(page, "| {release} | {version} | {flavours} | {tests} | {date} |")?;
    }
    Ok(())
}

fn about_loading<'a>(done: &'a [Done<'a>]) -> impl Iterator<Item = &'a Done<'a>> {
    done.iter().filter(|done| done.run.topic == Topic::Loading)
}

/// The results of tests that also run on the host.
fn behaviour(page: &mut String, done: &[Done<'_>]) -> Result<()> {
    writeln!(
        page,
        "\n## Behaviour\n\nTests passed / failed / skipped, by suite in `tests/e2e`.\n"
    )?;
    writeln!(page, "| Linux | hooks | tests | date |")?;
    writeln!(page, "|---|---|---|---|")?;
    for Done { run, outcome, date, .. } in done {
        let Topic::Behaviour(flavour) = &run.topic else { continue };
        let counts: Vec<String> = outcome.steps.iter().map(counts).collect();
        let tests = ended(counts.join(", ") + &second([outcome]), outcome);
        writeln!(page, "| {} | {flavour} | {tests} | {date} |", run.kernel.name)?;
    }
    Ok(())
}

/// The results with other boot parameters, cgroup versions and privileges.
fn configurations(page: &mut String, done: &[Done<'_>]) -> Result<()> {
    writeln!(page, "\n## Configurations\n")?;
    writeln!(page, "| Linux | configured | works, or is refused with the mend | date |")?;
    writeln!(page, "|---|---|---|---|")?;
    for Done { run, outcome, date, .. } in done {
        let Topic::Configuration(words) = run.topic else { continue };
        let tests = outcome.steps.iter().flat_map(|step| &step.fates);
        let names: Vec<String> = tests
            .map(|(name, fate)| match fate {
                Fate::Passed => format!("`{name}`"),
                Fate::Failed => format!("**`{name}` failed**"),
                Fate::Skipped => format!("`{name}` skipped"),
            })
            .collect();
        let tests = ended(names.join(", "), outcome);
        writeln!(page, "| {} | {words} | {tests} | {date} |", run.kernel.name)?;
    }
    Ok(())
}

/// Messages of the tool: its refusals, and the output of `doctor`.
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

/// Sums of many runs' test counts, as text.
pub(super) fn tally<'a>(outcomes: impl IntoIterator<Item = &'a Outcome> + Clone) -> String {
    let [passed, failed, skipped] = [Fate::Passed, Fate::Failed, Fate::Skipped]
        .map(|fate| outcomes.clone().into_iter().map(|outcome| outcome.count(fate)).sum::<usize>());
    format!("{passed} passed, {failed} failed, {skipped} skipped{}", second(outcomes))
}

/// The tests that passed only in a second boot; empty if there are none.
fn second<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> String {
    let late: Vec<&str> =
        outcomes.into_iter().flat_map(|outcome| &outcome.late).map(String::as_str).collect();
    match late.as_slice() {
        [] => String::new(),
        late => format!("; {} at the second boot: {}", late.len(), late.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{kernels::Kernels, plan};
    use super::*;

    #[test]
    fn runs_that_were_broken_off_are_told() {
        let kernels: Kernels = toml::from_str(
            "[[kernel]]\nname = '6.1'\nsuite = 'bookworm'\nflavours = ['b']\npackages = []\npins = []",
        )
        .unwrap();
        let kernel = Unpacked {
            kernel: "vmlinuz".into(),
            release: "6.1.0-50".into(),
            version: "6.1.176-1".into(),
            modules: Vec::new(),
        };
        for (ending, said) in [
            (Ending::Whole, "| 1 passed, 0 failed, 0 skipped | 2026-01-31 |"),
            (
                Ending::Hang,
                "| 1 passed, 0 failed, 0 skipped **did not end: it hung** | 2026-01-31 |",
            ),
        ] {
            let mut outcome = Outcome::new();
            for line in [
                "@vm begin hooks",
                r#"{ "type": "test", "name": "hooks::b_attaches", "event": "ok" }"#,
                "@vm end hooks 0",
            ] {
                outcome.hear(line);
            }
            outcome.ending = ending;
            let run = &plan::quick(&kernels)[0];
            let date = "2026-01-31".to_owned();
            let page = write(&[Done { run, kernel: &kernel, outcome, date }]).unwrap();
            assert!(page.contains(&format!("| 6.1.0-50 | 6.1.176-1 | b {said}\n")), "{page}");
        }
    }
}
