//! The command line. Users and scripts rely on it: options keep their meaning.

mod ci;
mod kubernetes;
mod ls;
mod run;
mod selection;
mod settings;
mod suppress;
mod values;
mod variables;

use std::ffi::{OsStr, OsString};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{BoolishValueParser, Resettable, TypedValueParser};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args, ColorChoice, CommandFactory as _, FromArgMatches as _};
use clap::{Parser, Subcommand};
use leak_common::config::MAX_PORTS;
use leak_common::connection::MAX_USES;

use crate::engine::{LONGEST_PERIOD as LONGEST, MAX_CONNECTIONS, SHORTEST_PERIOD};
use crate::outputs::ndjson::EventKind;
use crate::outputs::prometheus::{Label, ListenAddress};
use crate::sources::postgres::{Dsn, DsnError};
use leak_stacks::DriverFrames;

pub use ci::{AnnotationsOf, CiArgs};
pub use kubernetes::KubernetesArgs;
pub use ls::LsArgs;
pub use run::RunArgs;
pub use selection::SelectionArgs;
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
    /// Log only errors, and print only the report at the end; -qq: print nothing, the exit status
    /// alone tells.
    #[arg(short, long, global = true, action = ArgAction::Count, env = "PGSOCKTRACE_QUIET")]
    #[arg(value_parser = values::quietness, conflicts_with = "verbose")]
    #[arg(help_heading = None::<&str>)]
    pub quiet: u8,
    /// When to use colours: on a terminal, unless NO_COLOR is set or TERM is `dumb`, always or
    /// never.
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t)]
    #[arg(env = "PGSOCKTRACE_COLOR", help_heading = None::<&str>)]
    pub color: ColorChoice,
    /// Whether there is a password on the command line.
    #[arg(skip)]
    pub shows_password: bool,
}

impl Cli {
    /// Parses the arguments and the environment. On an error, and for `--help`, it prints the
    /// message and exits.
    #[must_use]
    pub fn from_command_line() -> Self {
        Self::read(std::env::args_os(), |name| std::env::var_os(name))
            .unwrap_or_else(|error| error.exit())
    }

    /// What is wrong with the environment: variables that no option has, as in a typo.
    #[must_use]
    pub fn complaints() -> Vec<String> {
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        variables::unknown(&Self::definition(), names)
    }

    /// All commands and options, as help, manual page and completions show them.
    #[must_use]
    pub fn definition() -> clap::Command {
        Self::command().mut_subcommand("run", |command| {
            let hide = |command: clap::Command, name: &&'static str| {
                command.mut_arg(name, |option| option.hide(true))
            };
            run::WITHOUT.iter().fold(command, hide)
        })
    }

    /// The options for tracing, of whichever command.
    #[must_use]
    pub fn tracing(&self) -> &TraceArgs {
        match &self.command {
            Some(Command::Run(args)) => &args.trace,
            _ => &self.trace,
        }
    }

    /// The same for the given arguments. `environment` is only used to find the variables that are
    /// as good as unset; clap itself reads the others.
    fn read(
        arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
        environment: impl Fn(&OsStr) -> Option<OsString>,
    ) -> Result<Self, clap::Error> {
        let clean = |option: clap::Arg| {
            let value = option.get_env().and_then(&environment);
            if value.is_some_and(|value| is_as_good_as_unset(&option, &value)) {
                option.env(Resettable::Reset)
            } else {
                option
            }
        };
        let mut command = Self::definition().mut_args(clean);
        command = command.mut_subcommands(|subcommand| subcommand.mut_args(clean));
        let matches = command.try_get_matches_from_mut(arguments)?;
        let mut cli =
            Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        if let Some(("run", given)) = matches.subcommand() {
            let on_command_line =
                |option: &&&str| given.value_source(option) == Some(ValueSource::CommandLine);
            if let Some(option) = run::WITHOUT.iter().find(on_command_line) {
                let message = format!("--{option} cannot be used with a command to run");
                return Err(command.error(ErrorKind::ArgumentConflict, message));
            }
        }
        let ports = cli.tracing().port.len();
        if ports > MAX_PORTS {
            let message = format!("at most {MAX_PORTS} ports can be traced at once, not {ports}");
            return Err(command.error(ErrorKind::TooManyValues, message));
        }
        let mut names: Vec<_> = cli.tracing().label.iter().map(|label| &label.name).collect();
        names.sort_unstable();
        if let Some([name, ..]) = names.windows(2).find(|pair| pair.first() == pair.last()) {
            let message = format!("the label '{name}' is given more than once");
            return Err(command.error(ErrorKind::ArgumentConflict, message));
        }
        let given = |matches: &ArgMatches, servers: &[Vec<Dsn>]| {
            matches.value_source("pg_dsn") == Some(ValueSource::CommandLine)
                && servers.iter().flatten().any(Dsn::has_password)
        };
        cli.shows_password = match (&cli.command, matches.subcommand()) {
            (Some(Command::Ls(args)), Some((_, matches))) => given(matches, &args.pg_dsn),
            (Some(Command::Run(args)), Some((_, matches))) => given(matches, &args.trace.pg_dsn),
            _ => given(&matches, &cli.trace.pg_dsn),
        };
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
    let is_switch = matches!(option.get_action(), ArgAction::SetTrue) || option.get_id() == "quiet";
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
    /// Trace a service that leaks in two ways, for 20 seconds, and print the report.
    ///
    /// Service and server are in this program: nothing else is needed but the privileges for
    /// tracing.
    Demo,
    /// The service that the demo traces.
    #[command(hide = true)]
    DemoService {
        /// The server's port.
        port: u16,
    },
    /// List who is connected to which server right now, without a trace.
    ///
    /// It says which process holds each connection, in which state TCP has it, since when it is
    /// silent and who spoke last; with --pg-dsn also what the server says of it. Run it with sudo
    /// to see other users' processes and containers.
    Ls(LsArgs),
    /// Run a command and trace it and its children, from the first connection on.
    ///
    /// The command runs as the user who called sudo, and has stdin, stdout and stderr as they are;
    /// signals are passed on to it. When it ends, the report goes to stderr, or to --report FILE.
    /// The exit status is that of the command, 128 and the number of the signal if one ended it.
    /// With --fail-on-leak it is 3 for a leak, and 1 when the command succeeded and whether there
    /// is a leak is not known.
    Run(Box<RunArgs>),
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
        /// Of what `pgsocktrace ls -o json` prints instead.
        #[arg(long, conflicts_with = "ndjson")]
        ls: bool,
    },
}

/// The options for replaying.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// A file that `--record` has written; `-` for stdin. A truncated file is read as far as it
    /// goes.
    pub file: PathBuf,
    /// Time without payload after which a connection is silent [default: as recorded].
    ///
    /// With a shorter time than the recorded one, some stacks of last uses are unknown: they were
    /// resolved only for connections that were silent then.
    #[arg(long, value_name = "DUR", env = "PGSOCKTRACE_SILENT_AFTER", value_parser = period)]
    pub silent_after: Option<Duration>,
    /// Maximum number of connections of the pool or server [default: as recorded].
    #[arg(long, value_name = "N", env = "PGSOCKTRACE_LIMIT")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Format of the report.
    #[arg(short, long, value_enum, ignore_case = true, default_value_t)]
    #[arg(env = "PGSOCKTRACE_OUTPUT")]
    pub output: Output,
    /// Which kinds of lines `-o ndjson` prints, for example `finding_opened,finding_retracted`
    /// [default: all but finding_opened and finding_updated, which tell the lines `finding` apart].
    #[arg(long, value_name = "KIND", env = "PGSOCKTRACE_EVENTS", value_delimiter = ',')]
    pub events: Vec<EventKind>,
    /// Exit with status 3 when a finding of severity `leak` is open at the end.
    #[arg(long, env = "PGSOCKTRACE_FAIL_ON_LEAK", value_parser = BoolishValueParser::new())]
    pub fail_on_leak: bool,
    /// The flame graph.
    #[command(flatten)]
    pub picture: PictureArgs,
    /// Continuous integration.
    #[command(flatten)]
    pub ci: CiArgs,
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
    #[arg(value_parser = values::pid)]
    pub pid: Vec<u32>,
    /// With --pid: also trace the children of these processes, present and future.
    #[arg(long, requires = "pid", env = "PGSOCKTRACE_CHILDREN", value_parser = BoolishValueParser::new())]
    pub children: bool,
    /// What processes are to be.
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// Trace connections to this server port (repeatable, at most 16).
    #[arg(short = 'P', long, default_value = "5432", env = "PGSOCKTRACE_PORT")]
    #[arg(value_delimiter = ',', value_parser = values::port)]
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
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
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
    /// Format of the report.
    #[arg(short, long, value_enum, ignore_case = true, default_value_t)]
    #[arg(env = "PGSOCKTRACE_OUTPUT")]
    pub output: Output,
    /// Which kinds of lines `-o ndjson` prints, for example `finding_opened,finding_retracted`
    /// [default: all but finding_opened and finding_updated, which tell the lines `finding` apart].
    #[arg(long, value_name = "KIND", env = "PGSOCKTRACE_EVENTS", value_delimiter = ',')]
    pub events: Vec<EventKind>,
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
    /// Continuous integration.
    #[command(flatten)]
    pub ci: CiArgs,
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
