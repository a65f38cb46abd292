//! `cargo xtask vm`: the real binary and the real tests on other kernels, in virtual machines.
//!
//! One archive holds everything: the binary, the tests and their client programs as they were
//! compiled here, PostgreSQL, and a plan for each run, which the kernel's command line names. See
//! [`protocol`].
//!
//! QEMU is run by hand and not by vmtest, whose machines share this machine's file system and
//! kernel modules: other kernels, their consoles and their instruction counts need more than it
//! offers.

mod contents;
mod image;
mod kernels;
mod machine;
mod outcome;
mod page;
mod plan;
pub mod protocol;

use std::{collections::BTreeSet, fs, path::Path, time::Instant};

use anyhow::{Result, bail, ensure};
use jiff::Timestamp;
use support::workspace::{self, target_directory};

use self::kernels::{Kernels, Unpacked};
use self::machine::Machine;
use self::outcome::{Ending, Outcome};
use self::page::Done;
use self::plan::{Run, Topic};
use crate::cost::{Figures, Peer};

/// Writes newer packages into the list of kernels.
pub fn update(root: &Path) -> Result<()> {
    Kernels::read(root)?.update(root, &target_directory(root))
}

/// Runs what a change has to pass before it lands (`quick`), or everything, as far as the runs'
/// names hold all of `filters`. Everything without a filter also writes `docs/kernels.md`.
pub fn run(root: &Path, quick: bool, filters: &[String]) -> Result<()> {
    let began = Instant::now();
    let kernels = Kernels::read(root)?;
    let all = if quick { plan::quick(&kernels) } else { plan::everything(&kernels) };
    let is_wanted = |run: &Run| filters.iter().all(|filter| run.name.contains(filter.as_str()));
    let runs: Vec<Run> = all.into_iter().filter(is_wanted).collect();
    ensure!(!runs.is_empty(), "No run's name holds {filters:?}.");

    let unpacked = unpack(&runs, &target_directory(root))?;
    let done = carry_out(root, &runs, &unpacked, &BTreeSet::new())?;
    println!(
        "\nvirtual machines: {} in {} s",
        page::tally(done.iter().map(|done| &done.outcome)),
        began.elapsed().as_secs()
    );
    if !quick && filters.is_empty() {
        fs::write(root.join("docs/kernels.md"), page::write(&done)?)?;
    }
    let bad = done.iter().filter(|done| !done.outcome.is_well());
    let bad: Vec<&str> = bad.map(|done| done.run.name.as_str()).collect();
    if !bad.is_empty() {
        bail!("These runs failed: {}.", bad.join(", "));
    }
    Ok(())
}

/// Counts the instructions that an event takes with the tracer, and with what people would use
/// instead, in one machine. Returns its kernel's release, and the figures of each.
pub fn count(root: &Path) -> Result<(String, Vec<Figures>)> {
    let kernels = Kernels::read(root)?;
    let runs: Vec<Run> = plan::peers(&kernels).into_iter().collect();
    let unpacked = unpack(&runs, &target_directory(root))?;
    let mut programs: BTreeSet<&str> = Peer::ALL.map(Peer::program).into();
    // bpftrace has a shell ask for a compiler, and dies where there is no shell.
    programs.insert("sh");
    let done = carry_out(root, &runs, &unpacked, &programs)?;
    let Some(Done { kernel, outcome, .. }) = done.first() else {
        bail!("No kernel lets the best hooks load.");
    };
    ensure!(outcome.is_well(), "The machine that counts instructions failed.");
    let notes = outcome.steps.iter().flat_map(|step| &step.notes);
    Ok((kernel.release.clone(), notes.filter_map(|note| Figures::read(note)).collect()))
}

/// The kernels of these runs, on this machine's disk.
fn unpack(runs: &[Run<'_>], target: &Path) -> Result<Vec<Unpacked>> {
    runs.iter().map(|run| run.kernel.unpack(target)).collect()
}

/// Boots the machines of these runs one after the other, with these programs in them besides.
fn carry_out<'a>(
    root: &Path,
    runs: &'a [Run<'a>],
    unpacked: &'a [Unpacked],
    programs: &BTreeSet<&str>,
) -> Result<Vec<Done<'a>>> {
    let directory = target_directory(root).join("vm");
    fs::create_dir_all(&directory)?;
    let binary = workspace::binary(root);
    // Large, and of no use afterwards.
    let scratch = tempfile::tempdir_in(&directory)?;
    let image = scratch.path().join("image.cpio");
    contents::write(root, &binary, unpacked, runs, programs, &image)?;

    let mut done = Vec::new();
    for (run, kernel) in runs.iter().zip(unpacked) {
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
    Ok(done)
}

/// Boots a machine, and once more when it did not come up, or one or two of its tests failed: what
/// fails again is a defect, what passes then is told apart.
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
