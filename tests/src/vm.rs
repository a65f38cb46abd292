//! `cargo xtask vm`: runs the real binary and the real tests on other kernels, in virtual machines.
//!
//! One archive holds everything: the binary, the tests and their client programs as compiled on the
//! host, PostgreSQL, and a plan for each run. The kernel's command line names the plan. See
//! [`protocol`].
//!
//! This module runs QEMU directly and not with vmtest, whose machines share the host's file system
//! and kernel modules. Other kernels, their consoles and instruction counts need more.

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

/// Updates the list of kernels to the newest packages.
pub fn update(root: &Path) -> Result<()> {
    Kernels::read(root)?.update(root, &target_directory(root))
}

/// Runs the virtual machines whose names contain all of `filters`: the required ones (`quick`) or
/// all. A full run without filters also writes `docs/kernels.md`.
pub fn run(root: &Path, quick: bool, filters: &[String]) -> Result<()> {
    let began = Instant::now();
    let kernels = Kernels::read(root)?;
    let all = if quick { plan::quick(&kernels) } else { plan::everything(&kernels) };
    let is_wanted = |run: &Run| filters.iter().all(|filter| run.name.contains(filter.as_str()));
    let runs: Vec<Run> = all.into_iter().filter(is_wanted).collect();
    ensure!(!runs.is_empty(), "No run's name contains {filters:?}.");

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

/// Counts the instructions per event with the tracer and with comparable tools, in one machine.
/// Returns the kernel's release, and each tool's figures.
pub fn count(root: &Path) -> Result<(String, Vec<Figures>)> {
    let kernels = Kernels::read(root)?;
    let runs: Vec<Run> = plan::peers(&kernels).into_iter().collect();
    let unpacked = unpack(&runs, &target_directory(root))?;
    let mut programs: BTreeSet<&str> = Peer::ALL.map(Peer::program).into();
    // bpftrace looks for a compiler through a shell, and crashes without a shell.
    programs.insert("sh");
    let done = carry_out(root, &runs, &unpacked, &programs)?;
    let Some(Done { kernel, outcome, .. }) = done.first() else {
        bail!("No kernel lets the best hooks load.");
    };
    ensure!(outcome.is_well(), "The machine that counts instructions failed.");
    let notes = outcome.steps.iter().flat_map(|step| &step.notes);
    Ok((kernel.release.clone(), notes.filter_map(|note| Figures::read(note)).collect()))
}

/// Unpacks the kernels of these runs.
fn unpack(runs: &[Run<'_>], target: &Path) -> Result<Vec<Unpacked>> {
    runs.iter().map(|run| run.kernel.unpack(target)).collect()
}

/// Boots the machines of these runs one after the other, with these additional programs.
fn carry_out<'a>(
    root: &Path,
    runs: &'a [Run<'a>],
    unpacked: &'a [Unpacked],
    programs: &BTreeSet<&str>,
) -> Result<Vec<Done<'a>>> {
    let directory = target_directory(root).join("vm");
    fs::create_dir_all(&directory)?;
    let binary = workspace::binary(root);
    // Large, and not needed after the run.
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

/// Boots a machine. Boots it again if it did not come up, or if one or two of its tests failed:
/// only a second failure counts as a defect, and late passes are reported.
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

/// Prints how a run ended, and the path of its console log if the run failed.
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
