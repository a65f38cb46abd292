//! Options of tracing.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use leak_common::connection::MAX_USES;

use super::ci::CiArgs;
use super::dsn::DsnParser;
use super::durations::{budget, duration_of_trace, period};
use super::kubernetes::KubernetesArgs;
use super::selection::SelectionArgs;
use super::values::{self, FlamegraphBy, Hooks, Output, power_of_two};
use crate::engine::MAX_CONNECTIONS;
use crate::outputs::ndjson::EventKind;
use crate::outputs::prometheus::{Label, ListenAddress};
use crate::sources::postgres::Dsn;
use leak_stacks::DriverFrames;

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
    /// "reaches N in 4 min".
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
    /// Keep what is learnt about who sends which statement in this file, and know what earlier runs
    /// have learnt: for sessions that are older than the trace.
    ///
    /// With --pg-dsn, whose servers tell the statements.
    #[arg(long, value_name = "FILE", env = "PGSOCKTRACE_LEARN", requires = "pg_dsn")]
    pub learn: Option<PathBuf>,
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
