//! The command line. Users and scripts rely on it: options keep their meaning.

mod kubernetes;
mod settings;
mod values;

use std::ffi::{OsStr, OsString};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{BoolishValueParser, Resettable, TypedValueParser};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgAction, Args, CommandFactory as _, FromArgMatches as _};
use clap::{Parser, Subcommand};
use leak_common::config::MAX_PORTS;
use leak_common::connection::MAX_USES;

use crate::engine::{LONGEST_PERIOD as LONGEST, MAX_CONNECTIONS, SHORTEST_PERIOD};
use crate::outputs::prometheus::{Label, ListenAddress};
use crate::sources::postgres::{Dsn, DsnError};
use crate::sources::procfs::name::CommPattern;
use leak_stacks::DriverFrames;

pub use kubernetes::KubernetesArgs;
pub use values::{FlamegraphBy, Hooks, KubernetesServer, Output};

const EXIT_STATUSES: &str = "\
Repeatable options also take several values separated by commas.

Exit status: 0 success; 1 an error while running; 2 bad usage; 3 a leak, with --fail-on-leak; \
4 tracing is impossible on this kernel or with these privileges, see `sudo pgsocktrace doctor`.";

/// Finds PostgreSQL connection leaks in running programs and names the code that causes them.
///
/// It traces TCP connections in the kernel with eBPF. The traced program needs no restart, no
/// configuration and no library. Without --pid, every process on the machine is traced. Findings
/// are printed as they arise; Ctrl-C stops the trace and prints the report.
#[derive(Clone, Debug, Parser)]
#[command(name = "pgsocktrace", version, args_conflicts_with_subcommands = true)]
#[command(after_long_help = EXIT_STATUSES)]
pub struct Cli {
    /// A command other than tracing.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The options for tracing.
    #[command(flatten)]
    pub trace: TraceArgs,
    /// Log more to stderr; -vv adds the log of the kernel programs.
    #[arg(short, long, global = true, action = ArgAction::Count, env = "PGSOCKTRACE_VERBOSE")]
    #[arg(help_heading = None::<&str>)]
    pub verbose: u8,
    /// Log only errors.
    #[arg(short, long, global = true, env = "PGSOCKTRACE_QUIET", conflicts_with = "verbose")]
    #[arg(value_parser = BoolishValueParser::new(), help_heading = None::<&str>)]
    pub quiet: bool,
}

impl Cli {
    /// Parses the arguments and the environment. On an error, and for `--help`, it prints the
    /// message and exits.
    #[must_use]
    pub fn from_command_line() -> Self {
        Self::read(std::env::args_os(), |name| std::env::var_os(name))
            .unwrap_or_else(|error| error.exit())
    }

    /// The same for the given arguments. `environment` is only used to find the variables that are
    /// as good as unset; clap itself reads the others.
    fn read(
        arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
        environment: impl Fn(&OsStr) -> Option<OsString>,
    ) -> Result<Self, clap::Error> {
        let mut command = Self::command().mut_args(|option| {
            let value = option.get_env().and_then(&environment);
            if value.is_some_and(|value| is_as_good_as_unset(&option, &value)) {
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

/// Parses connection strings, one per line. Errors do not quote them: they may hold passwords.
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

/// Whether a variable means the same as if it were unset: it is empty, as templates of pods and
/// services leave it, or a switch that is off, which must not conflict with other options.
fn is_as_good_as_unset(option: &clap::Arg, value: &OsStr) -> bool {
    let is_switch = matches!(option.get_action(), ArgAction::SetTrue);
    let off = ["0", "false", "no", "off", "n", "f"];
    value.is_empty() || (is_switch && off.iter().any(|off| value.eq_ignore_ascii_case(off)))
}

/// Commands other than tracing.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Check whether tracing works here, hook by hook, and say what to do where it does not.
    ///
    /// Run it with the privileges that the trace will have: `sudo pgsocktrace doctor`.
    Doctor,
    /// Print the report of a recorded run, in any format. Needs no privileges and works on any
    /// machine.
    Replay(ReplayArgs),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page in roff format.
    Man,
    /// Print the JSON schema of the report.
    Schema {
        /// Of a line of `-o ndjson` instead.
        #[arg(long)]
        ndjson: bool,
    },
}

/// The options for replaying.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// A file that `--record` has written. A truncated file is read as far as it goes.
    pub file: PathBuf,
    /// Time without payload after which a connection is silent [default: as recorded].
    ///
    /// With a shorter time than the recorded one, some stacks of last uses are unknown: they were
    /// resolved only for connections that were silent then.
    #[arg(long, value_name = "DUR", env = "PGSOCKTRACE_SILENT_AFTER", value_parser = period)]
    pub silent_after: Option<Duration>,
    /// Maximum number of connections of the pool or server [default: as recorded].
    #[arg(long, value_name = "N", env = "PGSOCKTRACE_LIMIT")]
    pub limit: Option<u64>,
    /// Format of the report.
    #[arg(short, long, value_enum, default_value_t, env = "PGSOCKTRACE_OUTPUT")]
    pub output: Output,
    /// Exit with status 3 when a finding of severity `leak` is open at the end.
    #[arg(long, env = "PGSOCKTRACE_FAIL_ON_LEAK", value_parser = BoolishValueParser::new())]
    pub fail_on_leak: bool,
    /// The flame graph.
    #[command(flatten)]
    pub picture: PictureArgs,
}

/// A flame graph of the connections that are open at the end.
#[derive(Clone, Debug, Args)]
pub struct PictureArgs {
    /// Write a flame graph of the connections that are open at the end to this SVG file. An
    /// existing file is overwritten.
    ///
    /// The width of a function is its number of connections. Open the file in a browser.
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
    pub flamegraph_by: FlamegraphBy,
}

/// The options for tracing.
#[derive(Clone, Debug, Args)]
pub struct TraceArgs {
    /// Trace only this process (repeatable).
    #[arg(short, long, env = "PGSOCKTRACE_PID", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(i32::MAX)))]
    pub pid: Vec<u32>,
    /// With --pid: also trace the children of these processes, present and future.
    #[arg(long, requires = "pid", env = "PGSOCKTRACE_CHILDREN", value_parser = BoolishValueParser::new())]
    pub children: bool,
    /// Trace only processes whose name matches this pattern (repeatable). `ps -o comm` shows the
    /// names.
    #[arg(short, long, value_name = "GLOB", env = "PGSOCKTRACE_COMM", value_delimiter = ',')]
    pub comm: Vec<CommPattern>,
    /// Trace connections to this server port (repeatable, at most 16).
    #[arg(short = 'P', long, default_value = "5432", env = "PGSOCKTRACE_PORT")]
    #[arg(value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Vec<u16>,
    /// How often to judge connections and print findings and the live table.
    #[arg(short, long, value_name = "DUR", default_value = "10s", env = "PGSOCKTRACE_INTERVAL")]
    #[arg(value_parser = period)]
    pub interval: Duration,
    /// Stop after this time and print the report [default: until Ctrl-C].
    #[arg(short, long, value_name = "DUR", env = "PGSOCKTRACE_DURATION")]
    #[arg(value_parser = duration_of_trace)]
    pub duration: Option<Duration>,
    /// Time without payload after which a connection is silent.
    #[arg(long, value_name = "DUR", default_value = "60s", env = "PGSOCKTRACE_SILENT_AFTER")]
    #[arg(value_parser = period)]
    pub silent_after: Duration,
    /// Maximum number of connections of the pool or server, for forecasts such as
    /// "reaches N in 4 m".
    #[arg(long, value_name = "N", env = "PGSOCKTRACE_LIMIT")]
    pub limit: Option<u64>,
    /// Never blame code whose function, module or source file matches this pattern (repeatable).
    ///
    /// For your own drivers and frameworks, for example `*/dbkit/*`. Common ones are known.
    #[arg(long, value_name = "GLOB", env = "PGSOCKTRACE_DRIVER_FRAMES", value_delimiter = ',')]
    pub driver_frames: Vec<DriverFrames>,
    /// Also ask this PostgreSQL server for its sessions (repeatable; one per line in the variable).
    ///
    /// A connection string as for libpq: `postgres://watch@db:5432/postgres` or `host=db
    /// user=watch`, with sslmode, sslrootcert and passfile. The role pg_monitor is sufficient. Do
    /// not put a password on the command line, where everyone can see it in `ps`: use ~/.pgpass, a
    /// passfile or the variable.
    #[arg(long, value_name = "DSN", env = "PGSOCKTRACE_PG_DSN", hide_env_values = true)]
    #[arg(value_parser = DsnParser)]
    pub pg_dsn: Vec<Vec<Dsn>>,
    /// Whether there is a password on the command line.
    #[arg(skip)]
    pub shows_password: bool,
    /// Format of the report.
    #[arg(short, long, value_enum, default_value_t, env = "PGSOCKTRACE_OUTPUT")]
    pub output: Output,
    /// Report the last N uses of each connection, at most 16: by which code, when, and for how
    /// long.
    ///
    /// A use begins with a request to an idle server and ends when the server is idle again, so a
    /// transaction is one use. Under TLS this cannot be seen: every request is a use without an
    /// end. They are in the JSON report, as `connections[].uses`. Each use takes as much kernel
    /// memory as the latest request's stack (see --stack-slots), plus half a KiB for each of
    /// --max-connections.
    #[arg(long, value_name = "N", default_value_t = 0, env = "PGSOCKTRACE_USES")]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=MAX_USES as i64))]
    pub uses: u32,
    /// Look in every interval for threads and goroutines that wait for a connection.
    ///
    /// Without it, they are looked for only where a pool may be exhausted: none of a process's
    /// connections was used lately. No thread is stopped.
    #[arg(long, env = "PGSOCKTRACE_WAITING", value_parser = BoolishValueParser::new())]
    pub waiting: bool,
    /// Serve /metrics (Prometheus), /healthz, /readyz and /flamegraph.svg at this address, such as
    /// 9738.
    ///
    /// A port alone binds to the loopback address; 0.0.0.0:9738 is open to everyone who can reach
    /// this machine. With port 0 the system chooses a port, which the log names.
    #[arg(long, value_name = "ADDR", env = "PGSOCKTRACE_METRICS_ADDR")]
    pub metrics_addr: Option<ListenAddress>,
    /// Add this label to every metric, for example `service=orders` (repeatable).
    #[arg(long, value_name = "NAME=VALUE", env = "PGSOCKTRACE_LABEL", value_delimiter = ',')]
    pub label: Vec<Label>,
    /// The flame graph.
    #[command(flatten)]
    pub picture: PictureArgs,
    /// Record the events in this file, for `pgsocktrace replay FILE`. An existing file is
    /// overwritten.
    #[arg(long, value_name = "FILE", env = "PGSOCKTRACE_RECORD")]
    pub record: Option<PathBuf>,
    /// Exit with status 3 when a finding of severity `leak` is open at the end.
    #[arg(long, env = "PGSOCKTRACE_FAIL_ON_LEAK", value_parser = BoolishValueParser::new())]
    pub fail_on_leak: bool,
    /// The names of pods.
    #[command(flatten, next_help_heading = "Kubernetes")]
    pub kubernetes: KubernetesArgs,
    /// Resources that the tracer may use.
    #[command(flatten, next_help_heading = "Resources")]
    pub resources: Resources,
}

/// Resources that the tracer may use.
#[derive(Clone, Debug, Args)]
pub struct Resources {
    /// Size in MiB of the ring buffer between kernel and collector; a power of two.
    #[arg(long, value_name = "MIB", default_value_t = 8, env = "PGSOCKTRACE_RING_SIZE")]
    #[arg(value_parser = power_of_two)]
    pub ring_size: u32,
    /// Maximum number of connections to trace at once.
    #[arg(long, value_name = "N", default_value_t = 32_768, env = "PGSOCKTRACE_MAX_CONNECTIONS")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CONNECTIONS)))]
    pub max_connections: u32,
    /// Maximum number of connections for which the stack of the latest request is kept.
    ///
    /// Each takes 16 KiB of kernel memory from its first request until it is closed, or 32 KiB if
    /// the program's stacks are longer. Half as many long ones can be kept; for the rest, the
    /// innermost 15 KiB are. The total is at most 32 KiB times N, and counts against a container's
    /// memory limit.
    #[arg(long, value_name = "N", default_value_t = 16_384, env = "PGSOCKTRACE_STACK_SLOTS")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub stack_slots: u32,
    /// Time per second that all processors together may spend on copying stacks.
    #[arg(long, value_name = "DUR", default_value = "15ms", env = "PGSOCKTRACE_STACK_BUDGET")]
    #[arg(value_parser = budget)]
    pub stack_budget: Duration,
    /// Drop every Nth event (tests reconciliation).
    #[arg(long, value_name = "N", default_value_t = 0, hide = true)]
    pub drop_one_in: u32,
    /// Use only hooks of this kind where there is a choice (tests the fallbacks).
    #[arg(long, value_enum, hide = true)]
    pub hooks: Option<Hooks>,
}

/// An interval, or a threshold that is checked at each interval.
fn period(text: &str) -> Result<Duration, String> {
    duration(text, SHORTEST_PERIOD..=LONGEST)
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
