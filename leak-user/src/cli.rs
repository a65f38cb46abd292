//! The command line: what users and scripts rely on.

use std::ffi::{OsStr, OsString};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{BoolishValueParser, Resettable, TypedValueParser};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgAction, Args, CommandFactory as _, FromArgMatches as _};
use clap::{Parser, Subcommand, ValueEnum};
use leak_common::config::MAX_PORTS;
use leak_common::connection::MAX_USES;

use crate::outputs::flamegraph::By;
use crate::outputs::prometheus::{Label, ListenAddress};
use crate::sources::kernel::hooks::Flavour;
use crate::sources::kubernetes::Kubernetes;
use crate::sources::postgres::{Dsn, DsnError};
use crate::sources::procfs::name::CommPattern;
use leak_stacks::DriverFrames;

const EXIT_STATUSES: &str = "\
Options that repeat also take several values at once, separated by commas.

Exit status: 0 done; 1 failed while running; 2 bad usage; 3 a leak, with --fail-on-leak; \
4 this kernel or these privileges cannot run it, see `pgsocktrace doctor`.";

/// Watches every TCP connection to PostgreSQL from the kernel and names the code that leaks them.
///
/// Needs nothing of the traced program: no restart, no configuration, no library. Without --pid it
/// traces every process on the node. Findings are printed as they arise; Ctrl-C ends the trace with
/// a report.
#[derive(Clone, Debug, Parser)]
#[command(name = "pgsocktrace", version, args_conflicts_with_subcommands = true)]
#[command(after_long_help = EXIT_STATUSES)]
pub struct Cli {
    /// What to do instead of tracing.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// What to trace, and how.
    #[command(flatten)]
    pub trace: TraceArgs,
    /// More of the tool's own log, on stderr; given twice, the kernel programs' log, too.
    #[arg(short, long, global = true, action = ArgAction::Count, env = "PGSOCKTRACE_VERBOSE")]
    #[arg(help_heading = None::<&str>)]
    pub verbose: u8,
    /// Less of the tool's own log.
    #[arg(short, long, global = true, env = "PGSOCKTRACE_QUIET", conflicts_with = "verbose")]
    #[arg(value_parser = BoolishValueParser::new(), help_heading = None::<&str>)]
    pub quiet: bool,
}

impl Cli {
    /// Reads the arguments and the environment. Prints what is wrong, or the help that was asked for,
    /// and ends the process then.
    #[must_use]
    pub fn from_command_line() -> Self {
        Self::read(std::env::args_os(), |name| std::env::var_os(name))
            .unwrap_or_else(|error| error.exit())
    }

    /// The same for the given arguments. Of `environment` only the variables that say nothing are
    /// taken note of; clap itself reads what the others say.
    fn read(
        arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
        environment: impl Fn(&OsStr) -> Option<OsString>,
    ) -> Result<Self, clap::Error> {
        let mut command = Self::command().mut_args(|option| {
            let value = option.get_env().and_then(&environment);
            if value.is_some_and(|value| says_nothing(&option, &value)) {
                option.env(Resettable::Reset)
            } else {
                option
            }
        });
        let matches = command.try_get_matches_from_mut(arguments)?;
        let mut cli =
            Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        let ports = cli.trace.port.len();
        if ports > MAX_PORTS {
            let message = format!("at most {MAX_PORTS} ports can be traced at once, not {ports}");
            return Err(command.error(ErrorKind::TooManyValues, message));
        }
        let mut names: Vec<_> = cli.trace.label.iter().map(|label| &label.name).collect();
        names.sort_unstable();
        if let Some([name, ..]) = names.windows(2).find(|pair| pair.first() == pair.last()) {
            let message = format!("the label '{name}' is given more than once");
            return Err(command.error(ErrorKind::ArgumentConflict, message));
        }
        let given = matches.value_source("pg_dsn") == Some(ValueSource::CommandLine);
        cli.trace.shows_password =
            given && cli.trace.pg_dsn.iter().flatten().any(Dsn::has_password);
        Ok(cli)
    }
}

/// Reads connection strings, one a line, and repeats nothing of them when they are wrong: they hold
/// passwords.
#[derive(Clone)]
struct DsnParser;

impl TypedValueParser for DsnParser {
    type Value = Vec<Dsn>;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Self::Value, clap::Error> {
        let wrong = |why: &dyn std::fmt::Display| {
            let message = format!("invalid value for '--pg-dsn <DSN>': {why}");
            command.clone().error(ErrorKind::ValueValidation, message)
        };
        let text = value.to_str().ok_or_else(|| wrong(&"it is not UTF-8"))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let servers: Vec<Dsn> =
            lines.map(Dsn::parse).collect::<Result<_, _>>().map_err(|error| wrong(&error))?;
        if servers.is_empty() { Err(wrong(&DsnError::NoHost)) } else { Ok(servers) }
    }
}

/// Whether a variable says no more than one that is not set: templates of pods and services set all of
/// them. A switch that is off must not count as given, or it would conflict with others.
fn says_nothing(option: &clap::Arg, value: &OsStr) -> bool {
    let is_switch = matches!(option.get_action(), ArgAction::SetTrue);
    let off = ["0", "false", "no", "off", "n", "f"];
    value.is_empty() || (is_switch && off.iter().any(|off| value.eq_ignore_ascii_case(off)))
}

/// What to do instead of tracing.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Say what this kernel and these privileges allow, hook by hook, and what to do about the rest.
    Doctor,
    /// Print what a recorded run has printed, in any format: without privileges, on any machine.
    Replay(ReplayArgs),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page, in roff.
    Man,
    /// Print the JSON schema of the report.
    Schema {
        /// Of a line of `-o ndjson` instead.
        #[arg(long)]
        ndjson: bool,
    },
}

/// What to replay, and how.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// A file that `--record` has written. One that breaks off is read up to there.
    pub file: PathBuf,
    /// How long a connection must carry no payload to count as silent, instead of what was recorded.
    ///
    /// Stacks of last uses were resolved only where the recorded run needed them, so with a shorter
    /// time than its own some are unknown.
    #[arg(long, value_name = "DUR", env = "PGSOCKTRACE_SILENT_AFTER", value_parser = period)]
    pub silent_after: Option<Duration>,
    /// How many connections the pool or the server allows, instead of what was recorded.
    #[arg(long, value_name = "N", env = "PGSOCKTRACE_LIMIT")]
    pub limit: Option<u64>,
    /// Format of the report.
    #[arg(short, long, value_enum, default_value_t, env = "PGSOCKTRACE_OUTPUT")]
    pub output: Output,
    /// Exit with status 3 when a finding of severity `leak` is open at the end.
    #[arg(long, env = "PGSOCKTRACE_FAIL_ON_LEAK", value_parser = BoolishValueParser::new())]
    pub fail_on_leak: bool,
    /// A picture of the open connections.
    #[command(flatten)]
    pub picture: PictureArgs,
}

/// A picture of the open connections at the end.
#[derive(Clone, Debug, Args)]
pub struct PictureArgs {
    /// Draw a flame graph of the connections that are open at the end into this SVG file. It is
    /// overwritten.
    ///
    /// The wider a function, the more connections. It opens in any browser.
    #[arg(long, value_name = "FILE", env = "PGSOCKTRACE_FLAMEGRAPH")]
    pub flamegraph: Option<PathBuf>,
    /// Which stack of each connection the flame graph shows.
    #[arg(
        long,
        value_enum,
        value_name = "STACK",
        default_value_t,
        env = "PGSOCKTRACE_FLAMEGRAPH_BY"
    )]
    pub flamegraph_by: By,
}

/// What to trace, and how.
#[derive(Clone, Debug, Args)]
pub struct TraceArgs {
    /// Trace only this process (repeatable).
    #[arg(short, long, env = "PGSOCKTRACE_PID", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(i32::MAX)))]
    pub pid: Vec<u32>,
    /// With --pid: trace the children of these processes, too, those they have and those to come.
    #[arg(long, requires = "pid", env = "PGSOCKTRACE_CHILDREN", value_parser = BoolishValueParser::new())]
    pub children: bool,
    /// Trace only processes whose name, as `ps -o comm` shows it, matches this pattern (repeatable).
    #[arg(short, long, value_name = "GLOB", env = "PGSOCKTRACE_COMM", value_delimiter = ',')]
    pub comm: Vec<CommPattern>,
    /// Trace connections to this server port (repeatable, at most 16).
    #[arg(short = 'P', long, default_value = "5432", env = "PGSOCKTRACE_PORT")]
    #[arg(value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Vec<u16>,
    /// How often connections are evaluated, and findings and the live table printed.
    #[arg(short, long, value_name = "DUR", default_value = "10s", env = "PGSOCKTRACE_INTERVAL")]
    #[arg(value_parser = period)]
    pub interval: Duration,
    /// Stop by itself after this long, then print the report.
    #[arg(short, long, value_name = "DUR", env = "PGSOCKTRACE_DURATION")]
    #[arg(value_parser = duration_of_trace)]
    pub duration: Option<Duration>,
    /// How long a connection must carry no payload to count as silent.
    #[arg(long, value_name = "DUR", default_value = "60s", env = "PGSOCKTRACE_SILENT_AFTER")]
    #[arg(value_parser = period)]
    pub silent_after: Duration,
    /// How many connections the pool or the server allows, for forecasts such as "reaches N in 4 m".
    #[arg(long, value_name = "N", env = "PGSOCKTRACE_LIMIT")]
    pub limit: Option<u64>,
    /// Never name code as the culprit whose function, module or source file matches this pattern: a
    /// driver's or framework's of your own, as in `*/dbkit/*` (repeatable).
    #[arg(long, value_name = "GLOB", env = "PGSOCKTRACE_DRIVER_FRAMES", value_delimiter = ',')]
    pub driver_frames: Vec<DriverFrames>,
    /// Ask this server for its sessions, too (repeatable; a line each in the variable).
    ///
    /// As libpq takes it: `postgres://watch@db:5432/postgres` or `host=db user=watch`, with sslmode,
    /// sslrootcert and passfile. The role pg_monitor suffices. A password on the command line can be
    /// seen by everyone in `ps`: put it into ~/.pgpass, a passfile or the variable.
    #[arg(long, value_name = "DSN", env = "PGSOCKTRACE_PG_DSN", hide_env_values = true)]
    #[arg(value_parser = DsnParser)]
    pub pg_dsn: Vec<Vec<Dsn>>,
    /// A password stands on the command line.
    #[arg(skip)]
    pub shows_password: bool,
    /// Format of the report.
    #[arg(short, long, value_enum, default_value_t, env = "PGSOCKTRACE_OUTPUT")]
    pub output: Output,
    /// Report the last N uses of each connection, at most 16: who took it, when, and for how long.
    ///
    /// A use begins with a request to an idle server and ends when the server is idle again, so that a
    /// transaction is one use. Where that cannot be seen, under TLS, every request is a use without an
    /// end. They are in the JSON, as `connections[].uses`. Each use takes as much kernel memory as
    /// the latest request's stack (--stack-slots), and all together half a KiB for each of --max-connections.
    #[arg(long, value_name = "N", default_value_t = 0, env = "PGSOCKTRACE_USES")]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=MAX_USES as i64))]
    pub uses: u32,
    /// Serve metrics for Prometheus at this address: /metrics, /healthz, /readyz, /flamegraph.svg.
    ///
    /// A bare port means the loopback; 0.0.0.0:PORT is open to everybody who can reach this machine. With
    /// port 0 the system chooses one, and the log says which.
    #[arg(long, value_name = "ADDR", env = "PGSOCKTRACE_METRICS_ADDR")]
    pub metrics_addr: Option<ListenAddress>,
    /// Put this label on every metric (repeatable), as in `service=orders`.
    #[arg(long, value_name = "NAME=VALUE", env = "PGSOCKTRACE_LABEL", value_delimiter = ',')]
    pub label: Vec<Label>,
    /// A picture of the open connections.
    #[command(flatten)]
    pub picture: PictureArgs,
    /// Keep what was seen in this file, for `pgsocktrace replay FILE`. It is overwritten.
    #[arg(long, value_name = "FILE", env = "PGSOCKTRACE_RECORD")]
    pub record: Option<PathBuf>,
    /// Exit with status 3 when a finding of severity `leak` is open at the end.
    #[arg(long, env = "PGSOCKTRACE_FAIL_ON_LEAK", value_parser = BoolishValueParser::new())]
    pub fail_on_leak: bool,
    /// Who is asked for the names of pods.
    #[command(flatten, next_help_heading = "Kubernetes")]
    pub kubernetes: Kubernetes,
    /// Resources that the tracer may use.
    #[command(flatten, next_help_heading = "Resources")]
    pub resources: Resources,
}

/// Resources that the tracer may use.
#[derive(Clone, Debug, Args)]
pub struct Resources {
    /// MiB of the ring buffer between kernel and collector, a power of two.
    #[arg(long, value_name = "MIB", default_value_t = 8, env = "PGSOCKTRACE_RING_SIZE")]
    #[arg(value_parser = power_of_two)]
    pub ring_size: u32,
    /// Connections that can be traced at once.
    #[arg(long, value_name = "N", default_value_t = 32_768, env = "PGSOCKTRACE_MAX_CONNECTIONS")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CONNECTIONS)))]
    pub max_connections: u32,
    /// Connections whose latest request's stack is kept.
    ///
    /// Each takes 16 KiB of kernel memory from its first request to its end. Where the program's stacks are
    /// longer it takes 32 KiB, and half as many can be kept; of the others the innermost 15 KiB are. At most
    /// that is 32 KiB for each of N; where memory is limited, as in a container, it counts.
    #[arg(long, value_name = "N", default_value_t = 16_384, env = "PGSOCKTRACE_STACK_SLOTS")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub stack_slots: u32,
    /// Time that all processors together may spend each second on copying stacks.
    #[arg(long, value_name = "DUR", default_value = "15ms", env = "PGSOCKTRACE_STACK_BUDGET")]
    #[arg(value_parser = budget)]
    pub stack_budget: Duration,
    /// Throw away one event in N, to see that the loss is healed.
    #[arg(long, value_name = "N", default_value_t = 0, hide = true)]
    pub drop_one_in: u32,
    /// Use only hooks of this flavour where there is a choice.
    #[arg(long, value_enum, hide = true)]
    pub hooks: Option<Flavour>,
}

/// Format of the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people: a live table, findings as they arise, a report at the end.
    #[default]
    Text,
    /// One document at the end.
    Json,
    /// One event a line, live, and the report as the last line.
    Ndjson,
}

/// Most connections that can be traced at once.
pub(crate) const MAX_CONNECTIONS: u32 = 4_000_000;
/// Nothing is judged more often.
pub(crate) const SHORTEST: Duration = Duration::from_millis(100);
/// Clocks that are added to and thresholds that are multiplied stay far from any overflow.
pub(crate) const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What is done again and again, or compared with what is measured then.
fn period(text: &str) -> Result<Duration, String> {
    duration(text, SHORTEST..=LONGEST)
}

fn duration_of_trace(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_millis(1)..=LONGEST)
}

fn budget(text: &str) -> Result<Duration, String> {
    duration(text, Duration::ZERO..=LONGEST)
}

fn duration(text: &str, allowed: RangeInclusive<Duration>) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; durations are written 500ms, 10s, 5m or 1h"))?;
    if duration < *allowed.start() {
        let shortest = humantime::format_duration(*allowed.start());
        Err(format!("it must be at least {shortest}"))
    } else if duration > *allowed.end() {
        Err("it must be at most 365d".into())
    } else {
        Ok(duration)
    }
}

fn power_of_two(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(mib) if mib.is_power_of_two() && mib <= 1024 => Ok(mib),
        _ => Err("it must be 1, 2, 4, 8 … or 1024".into()),
    }
}

#[cfg(test)]
mod tests;
