//! The commands of this repository: `cargo xtask help` lists them.

mod bench;
mod build;
mod cluster;
mod dist;
mod fuzz;
mod golang;
mod python;
mod rules;
mod setup;
mod test;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use support::{process::stop_on_signals, workspace::root};

use self::setup::Need;

/// The commands of this repository. Each does the set-up that it needs by itself.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", disable_version_flag = true)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what the other commands but `test cluster` need, where something is missing
    Setup {
        /// Only what these need
        needs: Vec<Need>,
    },
    /// Build the kernel programs and target/release/pgsocktrace
    Build,
    /// Trace an order service that leaks PostgreSQL connections, for half a minute
    Demo,
    /// Run the tests: all, those on the running kernel and a real PostgreSQL included, or one suite
    Test {
        /// A suite of tests/e2e such as `leaks`; `unit`: what needs neither root nor set-up;
        /// `cluster`: the DaemonSet on a real Kubernetes, which is built first
        suite: Option<String>,
        /// Handed to the test programs: parts of tests' names, `--skip NAME` …
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measure what tracing costs, beside what others cost, or something else
    #[command(args_conflicts_with_subcommands = true)]
    Bench {
        #[command(subcommand)]
        subject: Option<bench::Subject>,
        /// Only these parts of what tracing costs
        parts: Vec<String>,
    },
    /// Pack the static program with its manual, completions, licences and bill of materials
    Dist,
    /// Build the container image of deploy/kubernetes, as target/packages/pgsocktrace-image.tar
    Image,
    /// Run the tests on other kernels, in virtual machines
    Vm {
        /// `quick`: what a change has to pass; `update`: take newer kernels; anything else: only
        /// runs whose names contain it
        filters: Vec<String>,
    },
    /// Give a parser any bytes; without a target, list them
    Fuzz {
        target: Option<String>,
        #[arg(default_value_t = 60)]
        seconds: u32,
    },
    /// Make the Prometheus operator's copy of the rules in deploy/prometheus
    Rules,
}

fn main() -> ExitCode {
    let Options { command } = Options::parse();
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    stop_on_signals()?;
    let root = root();
    match command {
        Command::Setup { needs } if needs.is_empty() => setup::run(root, setup::EVERYTHING),
        Command::Setup { needs } => setup::run(root, &needs),
        Command::Build => build::run(root).map(drop),
        Command::Demo => bench::demo(root),
        Command::Test { suite: Some(suite), .. } if suite == "cluster" => cluster::test(root),
        Command::Test { suite, arguments } => test::run(root, suite.as_deref(), &arguments),
        Command::Bench { subject, parts } => bench::run(root, subject, parts),
        Command::Dist => dist::run(root),
        Command::Image => dist::image(root).map(drop),
        Command::Vm { filters } => vm::run(root, &filters),
        Command::Fuzz { target: None, .. } => fuzz::list(root),
        Command::Fuzz { target: Some(target), seconds } => fuzz::run(root, &target, seconds),
        Command::Rules => rules::run(root),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_commands_are_sound() {
        Options::command().debug_assert();
    }

    #[test]
    fn arguments_of_tests_are_handed_on() {
        let options = Options::try_parse_from(["xtask", "test", "leaks", "--skip", "go"]).unwrap();
        let Command::Test { suite, arguments } = options.command else { panic!("no test") };
        assert_eq!((suite.as_deref(), arguments.join(" ")), (Some("leaks"), "--skip go".into()));
    }

    #[test]
    fn parts_of_a_benchmark_are_no_subjects() {
        let read = |words: &[&str]| {
            let options = Options::try_parse_from([&["xtask", "bench"], words].concat()).ok()?;
            let Command::Bench { subject, parts } = options.command else { return None };
            Some((subject.is_some(), parts.len()))
        };
        assert_eq!(read(&[]), Some((false, 0)));
        assert_eq!(read(&["collector", "storms"]), Some((false, 2)));
        assert_eq!(read(&["scale"]), Some((true, 0)));
        assert_eq!(read(&["detect", "go-pq", "!/tls/", "--seed", "3"]), Some((true, 0)));
    }
}
