//! The commands of this repository: `cargo xtask help` lists them.

mod bench;
mod build;
mod cluster;
mod debian;
mod demo;
mod dist;
mod fuzz;
mod golang;
mod postgres;
mod process;
mod rules;
mod service;
mod setup;
mod test;
mod toolchain;
mod vm;

use std::{env, path::Path, process::ExitCode};

use anyhow::{Context as _, Result};

const USAGE: &str = "\
Usage: cargo xtask COMMAND

  setup  install what the other commands but `test cluster` need, where something is missing
  build  build the kernel programs and target/release/pgsocktrace
  demo   trace an order service that leaks PostgreSQL connections, for half a minute
  test   run every test, those on the running kernel and a real PostgreSQL included
         `test cluster`: the DaemonSet on a real Kubernetes, which it builds first
  bench  measure what tracing costs, beside what others cost: `bench [PART…]`; `bench stacks`: how many stacks are complete and right;
         `bench scale`: what judging a million connections takes;
         `bench detect [FILTER…]`: how right verdicts are, on leaking and healthy programs
  dist   pack the static program with its manual, completions, licences and bill of materials
  image  build the container image of deploy/kubernetes, as target/packages/pgsocktrace-image.tar
  vm     run the tests on other kernels, in virtual machines: `vm [FILTER…]` everything,
         `vm quick` what a change has to pass, `vm update` takes newer kernels
  fuzz   `fuzz TARGET [SECONDS]`: give a parser any bytes (60 s); without a target, list them
  rules  make the Prometheus operator's copy of the rules in deploy/prometheus

Each command does the set-up that it needs by itself. `test` hands its arguments to `cargo test`.
";

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let done = match (command.as_str(), rest.as_slice()) {
        ("setup", []) => in_workspace(|root| setup::run(root, setup::EVERYTHING)),
        ("build", []) => in_workspace(|root| build::run(root).map(drop)),
        ("dist", []) => in_workspace(dist::run),
        ("image", []) => in_workspace(|root| dist::image(root).map(drop)),
        ("demo", []) => in_workspace(demo::run),
        ("test", [which]) if which == "cluster" => in_workspace(cluster::test),
        ("test", rest) => in_workspace(|root| test::run(root, rest)),
        ("bench", rest) => match bench::Subject::named(rest) {
            Some(subject) => in_workspace(|root| bench::run(root, subject)),
            None => return misused(),
        },
        ("vm", [update]) if update == "update" => in_workspace(vm::update),
        ("vm", [quick, rest @ ..]) if quick == "quick" => {
            in_workspace(|root| vm::run(root, true, rest))
        }
        ("vm", rest) => in_workspace(|root| vm::run(root, false, rest)),
        ("fuzz", []) => in_workspace(fuzz::list),
        ("fuzz", [target, seconds @ ..]) => match fuzz::seconds(seconds) {
            Some(seconds) => in_workspace(|root| fuzz::run(root, target, seconds)),
            None => return misused(),
        },
        ("rules", []) => in_workspace(rules::run),
        ("help" | "--help" | "-h", _) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => return misused(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Says how the command is used.
fn misused() -> ExitCode {
    eprint!("{USAGE}");
    ExitCode::from(2)
}

/// Runs a command with the path of the workspace.
fn in_workspace(command: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no workspace")?;
    process::stop_on_signals()?;
    command(root)
}
