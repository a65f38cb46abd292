//! Measures, on this machine and now, what the documentation says. `cargo xtask bench` starts it
//! once everything is built.

mod cost;
mod detect;
mod stacks;

use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand};
use support::{
    process::{is_root, stop_on_signals},
    workspace,
};

/// Measures what the documentation says.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Options {
    #[command(subcommand)]
    subject: Option<Subject>,
    #[command(flatten)]
    cost: Cost,
}

#[derive(Subcommand)]
enum Subject {
    /// What tracing costs; writes docs/performance.md.
    Cost(Cost),
    /// How many stacks are complete and right; writes docs/stacks.md.
    Stacks,
    /// How right verdicts are, on the corpus of leaking and healthy programs; writes
    /// docs/detection.md.
    Detect(detect::Choice),
}

#[derive(Args)]
struct Cost {
    /// Only these parts.
    #[arg(value_enum)]
    parts: Vec<cost::Part>,
}

fn main() -> Result<()> {
    let Options { subject, cost } = Options::parse();
    stop_on_signals()?;
    ensure!(is_root(), "The kernel shows its statistics to root only.");
    let root = workspace::root();
    match subject.unwrap_or(Subject::Cost(cost)) {
        Subject::Cost(Cost { parts }) => cost::run(root, &parts),
        Subject::Stacks => stacks::run(root),
        Subject::Detect(choice) => detect::run(root, &choice),
    }
}
