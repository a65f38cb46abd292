//! `pgsocktrace`: parse, run, exit code.

use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;

use leak_user::cli::{Cli, Command};
use leak_user::demo;
use leak_user::doctor;
use leak_user::error::with_causes;
use leak_user::ls::{LsError, ls};
use leak_user::outputs::{OutputError, json, ndjson};
use leak_user::replay::{ReplayError, replay};
use leak_user::trace::{CommandError, Ended, TraceError, resources, trace};
use tokio::runtime::Runtime;

/// Exit statuses, as documented.
mod status {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    pub(crate) const FAILED: u8 = 1;
    pub(crate) const LEAK: u8 = 3;
    pub(crate) const CANNOT_RUN: u8 = 4;
    /// As shells have it.
    pub(crate) const NOT_EXECUTABLE: u8 = 126;
    pub(crate) const NOT_FOUND: u8 = 127;

    /// A command's own, or 128 and the number of the signal that ended it.
    pub(crate) fn of_command(status: ExitStatus) -> u8 {
        let signal = || Some(128 + status.signal()?);
        status.code().or_else(signal).and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED)
    }
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
    Ls(#[from] LsError),
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error("the demo's service and server cannot be started")]
    Demo(#[source] io::Error),
    #[error("the event loop could not be started")]
    EventLoop(#[source] io::Error),
}

impl Failure {
    /// Whether whoever read stdout has closed it: then there is nobody left to tell.
    fn reader_has_gone(&self) -> bool {
        match self {
            Self::Trace(TraceError::Output(error))
            | Self::Replay(ReplayError::Output(error))
            | Self::Ls(LsError::Output(error))
            | Self::Output(error) => error.reader_has_gone(),
            _ => false,
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::from_command_line();
    start_log(&cli);
    if !matches!(cli.command, Some(Command::DemoService { .. })) {
        Cli::complaints().iter().for_each(|complaint| log::warn!("{complaint}"));
    }
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
        Failure::Trace(TraceError::Command(CommandError::Execute { source, .. })) => {
            let is_missing = source.kind() == io::ErrorKind::NotFound;
            let status = if is_missing { status::NOT_FOUND } else { status::NOT_EXECUTABLE };
            (with_causes(&failure), status)
        }
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
        Some(Command::Replay(args)) => Ok(verdict(cli, &replay(&cli.replay_settings(args))?)),
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::definition(), "pgsocktrace", &mut script);
            io::stdout().write_all(&script).map_err(OutputError::from)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Man) => {
            let page = clap_mangen::Man::new(Cli::definition());
            page.render(&mut io::stdout()).map_err(OutputError::from)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Demo) => {
            let server = demo::StandIn::start().map_err(Failure::Demo)?;
            let program = std::env::current_exe().map_err(Failure::Demo)?;
            log::info!(
                "tracing a service that leaks in two ways, for {} s; both are in this program",
                demo::LASTS.as_secs()
            );
            event_loop()?.block_on(trace(&cli.demo_settings(program, server.port())))?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::DemoService { port }) => {
            demo::run_service(*port).map_err(Failure::Demo)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Ls(args)) => {
            warn_of_password(cli);
            let paint = cli.paint(io::stdout().is_terminal());
            event_loop()?.block_on(ls(&args.settings(paint), &mut io::stdout()))?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Schema { ndjson, ls }) => {
            let out = &mut io::stdout();
            let written = match (ndjson, ls) {
                (true, _) => ndjson::write_schema(out),
                (_, true) => json::write_listing_schema(out),
                _ => json::write_schema(out),
            };
            written.map_err(OutputError::from)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Run(_)) | None => {
            resources::return_memory_promptly();
            warn_of_password(cli);
            Ok(verdict(cli, &event_loop()?.block_on(trace(&cli.trace_settings()))?))
        }
    }
}

fn event_loop() -> Result<Runtime, Failure> {
    let mut event_loop = tokio::runtime::Builder::new_current_thread();
    event_loop.enable_all().build().map_err(Failure::EventLoop)
}

fn warn_of_password(cli: &Cli) {
    if cli.shows_password {
        log::warn!(
            "everyone can see the password of --pg-dsn in `ps`; put it into ~/.pgpass, a passfile, \
             or the variable PGSOCKTRACE_PG_DSN"
        );
    }
}

/// Whether a leak is to make the exit status.
fn fails_on_leak(cli: &Cli) -> bool {
    match &cli.command {
        Some(Command::Replay(args)) => args.fail_on_leak,
        _ => cli.tracing().fail_on_leak,
    }
}

/// The exit status of a trace. Whoever names a server wants its word. Whoever asks to fail on a
/// leak must not take "nothing could be found" for "there is no leak".
fn verdict(cli: &Cli, ended: &Ended) -> ExitCode {
    let ci = match &cli.command {
        Some(Command::Replay(args)) => &args.ci,
        _ => &cli.tracing().ci,
    };
    let is_new = |leak| ci.baseline.as_ref().is_none_or(|known| !known.has(leak));
    let fails_on_leak = fails_on_leak(cli);
    if fails_on_leak && ended.leaks.iter().copied().any(is_new) {
        return ExitCode::from(status::LEAK);
    }
    let command = ended.status.map(status::of_command);
    if let Some(status) = command.filter(|&status| status != 0) {
        return ExitCode::from(status);
    }
    if !ended.unanswered.is_empty() {
        let servers = ended.unanswered.join(", ");
        log::error!("never answered, so the report lacks its word: --pg-dsn {servers}");
        return ExitCode::FAILURE;
    }
    match ended.doubt {
        Some(doubt) if fails_on_leak => {
            log::error!("{doubt}");
            ExitCode::FAILURE
        }
        Some(doubt) if command.is_some() => {
            log::warn!("{doubt}");
            ExitCode::SUCCESS
        }
        _ => ExitCode::SUCCESS,
    }
}

/// The tool's own log goes to stderr; stdout carries only the report.
fn start_log(cli: &Cli) {
    let level = match (cli.quiet, cli.verbose) {
        (1.., _) => log::LevelFilter::Error,
        (0, 0) => log::LevelFilter::Info,
        (0, _) => log::LevelFilter::Debug,
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
