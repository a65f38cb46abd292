//! The command line. Users and scripts rely on it: options keep their meaning.

mod ci;
mod dsn;
mod durations;
mod kubernetes;
mod ls;
mod run;
mod selection;
mod settings;
mod suppress;
mod trace;
mod values;
mod variables;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{BoolishValueParser, Resettable};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args, ColorChoice, CommandFactory as _, FromArgMatches as _};
use clap::{Parser, Subcommand};
use leak_common::config::MAX_PORTS;

use crate::outputs::ndjson::EventKind;
use crate::sources::postgres::Dsn;

pub use ci::{AnnotationsOf, CiArgs};
pub use kubernetes::KubernetesArgs;
pub use ls::LsArgs;
pub use run::RunArgs;
pub use selection::SelectionArgs;
pub use trace::{PictureArgs, Resources, TraceArgs};
pub use values::{FlamegraphBy, FramesShown, Hooks, KubernetesServer, Output};

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
    /// How much of stacks the text shows.
    #[arg(long, global = true, value_enum, value_name = "WHICH", default_value_t)]
    #[arg(env = "PGSOCKTRACE_FRAMES", help_heading = None::<&str>)]
    pub frames: FramesShown,
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
    #[arg(long, value_name = "DUR", env = "PGSOCKTRACE_SILENT_AFTER", value_parser = durations::period)]
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

#[cfg(test)]
mod tests;
