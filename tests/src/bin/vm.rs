//! The program that `cargo xtask vm` runs.

use anyhow::Result;
use clap::Parser;
use harness::vm;
use support::{process::stop_on_signals, workspace};

/// Runs the tests on other kernels, in virtual machines.
#[derive(Parser)]
struct Options {
    /// Only what a change has to pass before it lands.
    #[arg(long)]
    quick: bool,
    /// Pin the newest kernels instead.
    #[arg(long, conflicts_with_all = ["quick", "filters"])]
    update: bool,
    /// Only runs whose names contain all of these.
    filters: Vec<String>,
}

fn main() -> Result<()> {
    stop_on_signals()?;
    let Options { quick, update, filters } = Options::parse();
    if update {
        return vm::update(workspace::root());
    }
    vm::run(workspace::root(), quick, &filters)
}
