//! `cargo xtask bench` and `cargo xtask demo`: set-up and build, then the program that does the
//! rest.

use std::{env, path::Path};

use anyhow::{Result, ensure};
use clap::Subcommand;
use support::{
    command::check,
    process::is_root,
    workspace::{BINARY, cargo},
};

use crate::{
    build,
    setup::{self, Need},
    vm,
};

/// What a measurement is about, unless it is what tracing costs.
#[derive(Subcommand)]
pub(crate) enum Subject {
    /// How many stacks are complete and right; writes docs/stacks.md
    Stacks,
    /// What judging a million connections takes
    Scale,
    /// How right verdicts are, on leaking and healthy programs; writes docs/detection.md
    Detect {
        /// Parts of scenarios' titles, `--seed N`, `--watch SECONDS`, `--parallel N`, `--minutes N`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

/// The part of what tracing costs that is measured in a virtual machine.
const IN_A_MACHINE: &str = "machine";

/// Measures, and prints or writes what came out.
pub(crate) fn run(root: &Path, subject: Option<Subject>, parts: Vec<String>) -> Result<()> {
    let mut needs = vec![Need::Build, Need::Database];
    let arguments = match subject {
        Some(Subject::Scale) => return scale(root),
        Some(Subject::Stacks) => {
            // The programs whose stacks are compared are those of the tests.
            needs.extend(setup::EVERYTHING);
            needs.push(Need::EveryGoRelease);
            vec!["stacks".to_owned()]
        }
        Some(Subject::Detect { arguments }) => {
            needs.push(Need::Tests);
            [vec!["detect".to_owned()], arguments].concat()
        }
        None => {
            needs.push(Need::Peers);
            if parts.is_empty() || parts.iter().any(|part| part == IN_A_MACHINE) {
                needs.extend(vm::NEEDS);
            }
            [vec!["cost".to_owned()], parts].concat()
        }
    };
    ensure!(is_root(), "The kernel shows its statistics to root only.");
    setup::run(root, &needs)?;
    // A binary that is there already is measured as it is.
    if env::var_os(BINARY).is_none() {
        build::run(root)?;
    }
    check(cargo(root).args(["run", "--quiet", "--locked", "-p", "bench", "--"]).args(arguments))
}

/// Neither kernel nor server is asked, so this takes no more than a build.
fn scale(root: &Path) -> Result<()> {
    setup::run(root, &[Need::Build])?;
    check(cargo(root).args([
        "run",
        "--release",
        "--locked",
        "-p",
        "leak-user",
        "--example",
        "scale",
    ]))
}

/// Traces a service that leaks.
pub(crate) fn demo(root: &Path) -> Result<()> {
    setup::run(root, &[Need::Build, Need::Database, Need::Demo])?;
    build::run(root)?;
    check(cargo(root).args(["run", "--quiet", "--locked", "-p", "tests", "--bin", "demo"]))
}
