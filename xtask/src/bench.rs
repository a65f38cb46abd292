//! `cargo xtask bench`: measures, on this machine and now, what the documentation says.

mod cost;
mod detect;
mod load;
mod programs;
mod stacks;

use std::path::Path;

use anyhow::{Result, ensure};

use crate::{process::is_root, setup};

/// What a measurement is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// What tracing costs.
    Cost,
    /// How many stacks are complete and right; writes `docs/stacks.md`.
    Stacks,
    /// How right verdicts are, on the corpus of leaking and healthy programs; writes `docs/detection.md`.
    Detect(detect::Choice),
}

impl Subject {
    /// The subject of this name; costs when none is given.
    pub(crate) fn named(arguments: &[String]) -> Option<Self> {
        match arguments {
            [] => Some(Self::Cost),
            [one] if one == "stacks" => Some(Self::Stacks),
            [one, rest @ ..] if one == "detect" => detect::Choice::read(rest).map(Self::Detect),
            _ => None,
        }
    }
}

/// Measures, and prints or writes what came out.
pub(crate) fn run(workspace: &Path, subject: Subject) -> Result<()> {
    ensure!(is_root(), "The kernel shows its statistics to root only.");
    setup::run(workspace, &[setup::Need::Build, setup::Need::Database, setup::Need::Bench])?;
    match subject {
        Subject::Cost => cost::run(workspace),
        Subject::Stacks => stacks::run(workspace),
        Subject::Detect(choice) => detect::run(workspace, &choice),
    }
}
