//! Names, types and help texts of the metrics.

use prometheus::proto::MetricType;

/// Prefix of every metric that is not about this process itself.
pub(super) const NAMESPACE: &str = "pgsocktrace_";

/// Labels of the metrics, which `--label` may not set.
pub(super) const OWN_LABELS: [&str; 15] = [
    "comm",
    "destination",
    "state",
    "reason",
    "severity",
    "kind",
    "quality",
    "program",
    "server",
    "version",
    "revision",
    "namespace",
    "pod",
    "container",
    "le",
];

/// The value of `comm` for all groups beyond the maximum.
pub(super) const OTHER: &str = "other";

/// Upper bounds of the idle histogram's buckets, in seconds.
pub(super) const IDLE_BUCKETS: [f64; 11] =
    [1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14_400.0];

/// A metric: its name, type and help text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    pub(super) name: &'static str,
    pub(super) kind: MetricType,
    pub(super) help: &'static str,
}

macro_rules! names {
    ($($id:ident = $kind:ident $name:literal $help:literal;)*) => {
        $(
            pub(super) const $id: Name =
                Name { name: $name, kind: MetricType::$kind, help: $help };
        )*
    };
}

names! {
    OPEN_CONNECTIONS = GAUGE "open_connections"
        "Open connections by state.";
    CONNECTIONS_OPENED = COUNTER "connections_opened_total"
        "Connections opened while traced.";
    CONNECTIONS_CLOSED = COUNTER "connections_closed_total"
        "Connections closed while traced, including failed ones.";
    CONNECT_FAILURES = COUNTER "connect_failures_total"
        "Connections that could not be established.";
    SILENT_CONNECTIONS = GAUGE "silent_connections"
        "Open connections without payload for at least --silent-after.";
    OLDEST_SILENCE = GAUGE "oldest_silence_seconds"
        "Time since the last payload of the longest silent connection.";
    SUSPECTED_LEAKED = GAUGE "suspected_leaked_connections"
        "Open connections with open findings; one may count as growing and for another reason.";
    POOL_CONNECTIONS = GAUGE "pool_connections"
        "Connections of the program's own pool, by its own word: in use or idle.";
    POOL_MAX = GAUGE "pool_max"
        "Maximum number of connections of the program's own pool.";
    POOL_WAITING = GAUGE "pool_waiting"
        "Callers who wait for a connection of the program's own pool.";
    POOL_WAIT = COUNTER "pool_wait_seconds_total"
        "Time that callers have waited for a connection of the program's own pool.";
    WAITING_THREADS = GAUGE "waiting_threads"
        "Threads and goroutines that wait for a connection, where they were looked for.";
    FINDINGS = COUNTER "findings_total"
        "Findings opened.";
    FINDINGS_RETRACTED = COUNTER "findings_retracted_total"
        "Findings retracted because they were wrong or no longer true.";
    CONNECTION_IDLE = HISTOGRAM "connection_idle_seconds"
        "Silence of connections without an unanswered request, observed once per connection and interval.";
    EVENTS = COUNTER "events_total"
        "Events sent by the kernel programs.";
    EVENTS_LOST = COUNTER "events_lost_total"
        "Events lost on the way from the kernel; their effect is corrected at the next interval.";
    MAP_FULL = COUNTER "map_full_total"
        "Items not recorded because their table was full.";
    RECONCILED = COUNTER "reconciled_total"
        "Corrections from the kernel's list of sockets.";
    STACKS = COUNTER "stacks_total"
        "Stacks that were needed, by quality.";
    STACK_COPIES = COUNTER "stack_copies_total"
        "Stacks of connects and requests, by whether the kernel programs could copy them.";
    BPF_RUN_TIME = COUNTER "bpf_run_time_seconds_total"
        "Time spent in each of the tracer's kernel programs.";
    BPF_RUN_COUNT = COUNTER "bpf_run_count_total"
        "Runs of each of the tracer's kernel programs.";
    BPF_CORES = GAUGE "bpf_cores"
        "Average CPU use of the tracer's kernel programs in cores, sampled one second in thirty.";
    BPF_SKIPPED = COUNTER "bpf_skipped_runs_total"
        "Runs of the tracer's kernel programs that the kernel skipped, for any socket.";
    SERIES_FOLDED = COUNTER "series_folded_total"
        "Groups of connections counted under comm=\"other\" because there were too many.";
    CONNECTION_LIMIT = GAUGE "connection_limit_connections"
        "Maximum number of connections of the pool or server, as set by --limit.";
    SERVER_UP = GAUGE "server_up"
        "1 if the PostgreSQL server has answered when asked for its sessions, else 0.";
    SERVER_USED = GAUGE "server_used_connections"
        "Used connections, as the PostgreSQL server reports them.";
    SERVER_MAX = GAUGE "server_max_connections"
        "Maximum number of connections of the PostgreSQL server.";
    LAST_EVALUATION = GAUGE "last_evaluation_timestamp_seconds"
        "Unix time of the last evaluation of connections.";
    INTERVAL = GAUGE "interval_seconds"
        "Time between two evaluations of connections.";
    BUILD_INFO = GAUGE "build_info"
        "Always 1, with the version and revision of this program as labels.";
    PROCESS_CPU = COUNTER "process_cpu_seconds_total"
        "CPU time that this program has used, user and system.";
    PROCESS_MEMORY = GAUGE "process_resident_memory_bytes"
        "Resident memory of this program.";
    PROCESS_VIRTUAL = GAUGE "process_virtual_memory_bytes"
        "Virtual memory of this program.";
    PROCESS_START = GAUGE "process_start_time_seconds"
        "Unix time at which this program was started.";
}

impl Name {
    /// The full name. Process metrics have the same names in every exporter, so they lack the
    /// prefix.
    pub(super) fn full(&self) -> String {
        let own = self.name.starts_with("process_");
        if own { self.name.to_owned() } else { format!("{NAMESPACE}{}", self.name) }
    }
}
