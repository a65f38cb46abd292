//! `pgsocktrace`: parse, run, exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::CommandFactory as _;
use leak_user::cli::{Cli, Command};
use leak_user::doctor;
use leak_user::outputs::{json, ndjson};
use leak_user::replay::replay;
use leak_user::sources::kernel::KernelError;
use leak_user::trace::memory;
use leak_user::trace::{self, Ended};

/// Exit statuses, as documented.
mod status {
    pub(crate) const FAILED: u8 = 1;
    pub(crate) const LEAK: u8 = 3;
    pub(crate) const CANNOT_RUN: u8 = 4;
}

const UNJUDGED: &str =
    "stdout was closed before the trace ended, so whether there is a leak is not known";

fn main() -> ExitCode {
    let cli = Cli::from_command_line();
    start_log(&cli);
    match run(&cli) {
        Ok(code) => code,
        Err(error) if reader_has_gone(&error) => {
            if fails_on_leak(&cli) {
                // Whoever asked for a verdict must not take silence for a good one.
                let _ = writeln!(io::stderr(), "pgsocktrace: {UNJUDGED}");
                ExitCode::from(status::FAILED)
            } else {
                ExitCode::SUCCESS
            }
        }
        Err(error) => {
            // Nothing can be done when stderr is closed, too.
            let _ = writeln!(io::stderr(), "pgsocktrace: {}", trace::sentence(&error));
            let cannot_run = error.chain().any(|cause| cause.is::<KernelError>());
            ExitCode::from(if cannot_run { status::CANNOT_RUN } else { status::FAILED })
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    match &cli.command {
        Some(Command::Doctor) => {
            let settings = trace::settings(&cli.trace, cli.verbose);
            let fit = doctor::examine(&settings, &mut io::stdout().lock())?;
            Ok(if fit { ExitCode::SUCCESS } else { ExitCode::from(status::CANNOT_RUN) })
        }
        Some(Command::Replay(args)) => Ok(verdict(cli, replay(args)?)),
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "pgsocktrace", &mut script);
            io::stdout().write_all(&script)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Man) => {
            clap_mangen::Man::new(Cli::command()).render(&mut io::stdout())?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Schema { ndjson }) => {
            let out = &mut io::stdout();
            if *ndjson {
                ndjson::write_schema(out)?
            } else {
                json::write_schema(out)?
            }
            Ok(ExitCode::SUCCESS)
        }
        None => {
            memory::give_back_promptly();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("the event loop could not be started")?;
            Ok(verdict(cli, runtime.block_on(trace::trace(&cli.trace, cli.verbose))?))
        }
    }
}

/// Whether a leak is to make the exit status.
fn fails_on_leak(cli: &Cli) -> bool {
    match &cli.command {
        Some(Command::Replay(args)) => args.fail_on_leak,
        _ => cli.trace.fail_on_leak,
    }
}

fn verdict(cli: &Cli, Ended { leak }: Ended) -> ExitCode {
    let failed = leak && fails_on_leak(cli);
    if failed { ExitCode::from(status::LEAK) } else { ExitCode::SUCCESS }
}

/// The tool's own log goes to stderr; stdout carries only the report.
fn start_log(cli: &Cli) {
    let level = match (cli.quiet, cli.verbose) {
        (true, _) => log::LevelFilter::Error,
        (false, 0) => log::LevelFilter::Info,
        (false, _) => log::LevelFilter::Debug,
    };
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Warn)
        .filter_module("leak_user", level)
        .filter_module("leak_ebpf", level)
        .format(|out, record| match record.level() {
            log::Level::Info => writeln!(out, "pgsocktrace: {}", record.args()),
            level => {
                writeln!(out, "pgsocktrace: {}: {}", level.as_str().to_lowercase(), record.args())
            }
        })
        .init();
}

/// Whether whoever read the report has gone: then there is nobody left to tell. What is written to
/// stdout fails with the bare error; a pipe that broke elsewhere has a context that says so.
fn reader_has_gone(error: &anyhow::Error) -> bool {
    error
        .chain()
        .next()
        .and_then(|first| first.downcast_ref::<io::Error>())
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
