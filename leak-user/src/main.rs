//! `pgsocktrace`: parse, run, exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::CommandFactory as _;
use leak_user::cli::{Cli, Command};
use leak_user::doctor;
use leak_user::error::with_causes;
use leak_user::outputs::{OutputError, json, ndjson};
use leak_user::replay::{ReplayError, replay};
use leak_user::trace::{Ended, TraceError, resources, trace};

/// Exit statuses, as documented.
mod status {
    pub(crate) const FAILED: u8 = 1;
    pub(crate) const LEAK: u8 = 3;
    pub(crate) const CANNOT_RUN: u8 = 4;
}

const UNJUDGED: &str =
    "stdout was closed before the trace ended, so whether there is a leak is not known";

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Trace(#[from] TraceError),
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error("the event loop could not be started")]
    EventLoop(#[source] io::Error),
}

impl Failure {
    /// Whether whoever read stdout has closed it: then there is nobody left to tell.
    fn reader_has_gone(&self) -> bool {
        match self {
            Self::Trace(TraceError::Output(error))
            | Self::Replay(ReplayError::Output(error))
            | Self::Output(error) => error.reader_has_gone(),
            _ => false,
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::from_command_line();
    start_log(&cli);
    let failure = match run(&cli) {
        Ok(code) => return code,
        Err(failure) => failure,
    };
    let (said, status) = match &failure {
        gone if gone.reader_has_gone() => {
            if !fails_on_leak(&cli) {
                return ExitCode::SUCCESS;
            }
            // Whoever asked for a verdict must not take silence for a good one.
            (UNJUDGED.to_owned(), status::FAILED)
        }
        Failure::Trace(TraceError::Kernel(error)) => (with_causes(error), status::CANNOT_RUN),
        failure => (with_causes(failure), status::FAILED),
    };
    // Nothing can be done when stderr is closed, too.
    let _ = writeln!(io::stderr(), "pgsocktrace: {said}");
    ExitCode::from(status)
}

fn run(cli: &Cli) -> Result<ExitCode, Failure> {
    match &cli.command {
        Some(Command::Doctor) => {
            let fit = doctor::examine(&cli.kernel_settings(), &mut io::stdout().lock());
            let fit = fit.map_err(OutputError::from)?;
            Ok(if fit { ExitCode::SUCCESS } else { ExitCode::from(status::CANNOT_RUN) })
        }
        Some(Command::Replay(args)) => Ok(verdict(cli, replay(&args.settings())?)),
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "pgsocktrace", &mut script);
            io::stdout().write_all(&script).map_err(OutputError::from)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Man) => {
            let page = clap_mangen::Man::new(Cli::command());
            page.render(&mut io::stdout()).map_err(OutputError::from)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Schema { ndjson }) => {
            let out = &mut io::stdout();
            let written = if *ndjson { ndjson::write_schema(out) } else { json::write_schema(out) };
            written.map_err(OutputError::from)?;
            Ok(ExitCode::SUCCESS)
        }
        None => {
            resources::return_memory_promptly();
            if cli.trace.shows_password {
                log::warn!(
                    "everyone can see the password of --pg-dsn in `ps`; put it into ~/.pgpass, a \
                     passfile, or the variable PGSOCKTRACE_PG_DSN"
                );
            }
            let mut event_loop = tokio::runtime::Builder::new_current_thread();
            let event_loop = event_loop.enable_all().build().map_err(Failure::EventLoop)?;
            Ok(verdict(cli, event_loop.block_on(trace(&cli.trace_settings()))?))
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

/// The exit status of a trace. Whoever names a server wants its word, and whoever asks to fail on a
/// leak must not take "nothing could be found" for "there is no leak".
fn verdict(cli: &Cli, ended: Ended) -> ExitCode {
    let Ended { verdict, lasted, silent_after, unanswered } = ended;
    if fails_on_leak(cli) && verdict.leaks > 0 {
        return ExitCode::from(status::LEAK);
    }
    if !unanswered.is_empty() {
        let servers = unanswered.join(", ");
        log::error!("never answered, so the report lacks its word: --pg-dsn {servers}");
        return ExitCode::FAILURE;
    }
    if !fails_on_leak(cli) {
        return ExitCode::SUCCESS;
    }
    if lasted < silent_after {
        log::error!(
            "no leak could be found: the trace lasted {:.1} s, and connections count as silent after \
             {:.1} s; trace for longer, or set --silent-after",
            lasted.as_secs_f64(),
            silent_after.as_secs_f64()
        );
        return ExitCode::FAILURE;
    }
    if verdict.unknown_older > 0 {
        log::error!(
            "cannot tell whether there is a leak: {} silent connections are older than the trace; \
             start the trace before the program, or name the server with --pg-dsn",
            verdict.unknown_older
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
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
        .filter_module("leak_stacks", level)
        .filter_module("leak_ebpf", level)
        .format(|out, record| match record.level() {
            log::Level::Info => writeln!(out, "pgsocktrace: {}", record.args()),
            level => {
                writeln!(out, "pgsocktrace: {}: {}", level.as_str().to_lowercase(), record.args())
            }
        })
        .init();
}
