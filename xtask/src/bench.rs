//! `cargo xtask bench`: measures, on this machine and now, what the documentation says.

mod cost;
mod detect;
mod stacks;

use std::path::Path;

use anyhow::{Result, ensure};

use crate::{
    build::cargo,
    process::{check, is_root},
    setup,
};

/// What a measurement is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// What tracing costs, in all parts or some; writes `docs/performance.md`.
    Cost(Vec<usize>),
    /// How many stacks are complete and right; writes `docs/stacks.md`.
    Stacks,
    /// What judging many connections takes, in made-up histories.
    Scale,
    /// How right verdicts are, on the corpus of leaking and healthy programs; writes `docs/detection.md`.
    Detect(detect::Choice),
}

impl Subject {
    /// The subject of this name; costs when none is given.
    pub(crate) fn named(arguments: &[String]) -> Option<Self> {
        match arguments {
            [one] if one == "stacks" => Some(Self::Stacks),
            [one] if one == "scale" => Some(Self::Scale),
            [one, rest @ ..] if one == "detect" => detect::Choice::read(rest).map(Self::Detect),
            parts => cost::chosen(parts).map(Self::Cost),
        }
    }
}

/// Measures, and prints or writes what came out.
pub(crate) fn run(workspace: &Path, subject: Subject) -> Result<()> {
    use setup::Need::{Build, Database, Peers};
    match subject {
        Subject::Cost(parts) => {
            prepare(workspace, &[Build, Database, Peers])?;
            cost::run(workspace, &parts)
        }
        Subject::Stacks => {
            // The programs whose stacks are compared are those of the tests.
            prepare(workspace, setup::EVERYTHING)?;
            stacks::run(workspace)
        }
        Subject::Scale => scale(workspace),
        Subject::Detect(choice) => {
            prepare(workspace, &[Build, Database])?;
            detect::run(workspace, &choice)
        }
    }
}

/// What measurements on the running kernel need.
fn prepare(workspace: &Path, needs: &[setup::Need]) -> Result<()> {
    ensure!(is_root(), "The kernel shows its statistics to root only.");
    setup::run(workspace, needs)
}

/// Neither kernel nor server is asked, so this takes no more than a build.
fn scale(workspace: &Path) -> Result<()> {
    setup::run(workspace, &[setup::Need::Build])?;
    let mut command = cargo(workspace);
    check(command.args(["run", "--release", "-p", "leak-user", "--example", "scale"]))
}
