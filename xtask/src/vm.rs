//! `cargo xtask vm`: the real binary and the real tests on other kernels, in virtual machines.
//!
//! One archive holds everything: the binary, the tests and their client programs as they were compiled
//! here, PostgreSQL, and a plan for each run, which the kernel's command line names. See `tests::vm`.

mod image;
mod kernels;
mod machine;
mod outcome;
mod page;
mod plan;
mod stock;

use std::{fs, path::Path, time::Instant};

use anyhow::{Result, bail, ensure};
use jiff::Timestamp;

use self::kernels::Kernels;
use self::machine::Machine;
use self::outcome::{Ending, Outcome};
use self::page::Done;
use self::plan::{Run, Topic};
use crate::{
    build,
    setup::{self, Language, Need},
    toolchain::target_directory,
};

/// What it takes to fill the machines and to boot them. The client programs are in C.
const NEEDS: &[Need] =
    &[Need::Build, Need::Database, Need::Tests, Need::Corpus(Language::C), Need::Machines];

/// Writes newer packages into the list of kernels.
pub(crate) fn update(workspace: &Path) -> Result<()> {
    setup::run(workspace, &[Need::Machines])?;
    Kernels::read(workspace)?.update(workspace, &target_directory(workspace))
}

/// Runs what a change has to pass before it lands (`quick`), or everything, as far as the runs' names
/// hold all of `filters`. Everything without a filter also writes `docs/kernels.md`.
pub(crate) fn run(workspace: &Path, quick: bool, filters: &[String]) -> Result<()> {
    setup::run(workspace, NEEDS)?;
    let began = Instant::now();
    let target = target_directory(workspace);
    let directory = target.join("vm");
    fs::create_dir_all(&directory)?;
    let kernels = Kernels::read(workspace)?;
    let all = if quick { plan::quick(&kernels) } else { plan::everything(&kernels) };
    let is_wanted = |run: &Run| filters.iter().all(|filter| run.name.contains(filter.as_str()));
    let runs: Vec<Run> = all.into_iter().filter(is_wanted).collect();
    ensure!(!runs.is_empty(), "No run's name holds {filters:?}.");

    let mut unpacked = Vec::new();
    for run in &runs {
        unpacked.push(run.kernel.unpack(&target)?);
    }
    let binary = build::run(workspace)?;
    // Large, and of no use afterwards.
    let scratch = tempfile::tempdir_in(&directory)?;
    let image = scratch.path().join("image.cpio");
    stock::write(workspace, &binary, &unpacked, &runs, &image)?;

    let mut done = Vec::new();
    for (run, kernel) in runs.iter().zip(&unpacked) {
        println!("\n== {} on Linux {} ==", run.name, kernel.release);
        let machine = Machine {
            name: &run.name,
            kernel: &kernel.kernel,
            image: &image,
            parameters: &run.parameters,
            counts: run.topic == Topic::Instructions,
            directory: &directory,
        };
        let outcome = boot(&machine)?;
        conclude(run, &outcome, &directory);
        let date = Timestamp::now().strftime("%Y-%m-%d").to_string();
        done.push(Done { run, kernel, outcome, date });
    }
    println!(
        "\nvirtual machines: {} in {} s",
        page::tally(done.iter().map(|done| &done.outcome)),
        began.elapsed().as_secs()
    );
    if !quick && filters.is_empty() {
        fs::write(workspace.join("docs/kernels.md"), page::write(&done)?)?;
    }
    let bad = done.iter().filter(|done| !done.outcome.is_well());
    let bad: Vec<&str> = bad.map(|done| done.run.name.as_str()).collect();
    if !bad.is_empty() {
        bail!("These runs failed: {}.", bad.join(", "));
    }
    Ok(())
}

/// Boots a machine, and once more when it did not come up, or one or two of its tests failed: what fails
/// again is a defect, what passes then is told apart.
fn boot(machine: &Machine<'_>) -> Result<Outcome> {
    let tell = |line: &str| println!("{line}");
    let first = machine.run(tell)?;
    let Some(late) = first.unlucky() else { return Ok(first) };
    println!("\nOnce more, for {} failed: {}", machine.name, late.join(", "));
    let mut second = machine.run(tell)?;
    if !second.is_well() {
        return Ok(first);
    }
    second.late = late;
    Ok(second)
}

/// Says how one run ended, and where its console is if it did not end well.
fn conclude(run: &Run, outcome: &Outcome, directory: &Path) {
    if outcome.ending != Ending::Whole {
        let trouble = outcome.trouble.as_deref().unwrap_or("it did not say why");
        println!("{}: {}; {trouble}", run.name, outcome.ending);
    }
    println!("{}: {} in {} s", run.name, page::tally([outcome]), outcome.seconds);
    if !outcome.is_well() {
        println!("{}: see {}/{0}.console", run.name, directory.display());
    }
}
