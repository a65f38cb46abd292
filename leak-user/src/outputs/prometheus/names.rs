//! What the metrics are called, and what each one says.

use prometheus::proto::MetricType;

/// Begins the name of every metric that is not about this process itself.
pub(super) const NAMESPACE: &str = "pgsocktrace_";

/// Names of labels that the metrics use themselves; `--label` must leave them alone.
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

/// The label under which everything goes that would be one series too many.
pub(super) const OTHER: &str = "other";

/// Upper bounds of the idle histogram's buckets, in seconds.
pub(super) const IDLE_BUCKETS: [f64; 11] =
    [1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14_400.0];

/// A metric as it is announced.
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
        "Connections open now, by what they are doing.";
    CONNECTIONS_OPENED = COUNTER "connections_opened_total"
        "Connections opened while traced.";
    CONNECTIONS_CLOSED = COUNTER "connections_closed_total"
        "Connections closed while traced, failed ones among them.";
    CONNECT_FAILURES = COUNTER "connect_failures_total"
        "Connections that could not be established.";
    SILENT_CONNECTIONS = GAUGE "silent_connections"
        "Open connections that have carried no payload for as long as counts as silent.";
    OLDEST_SILENCE = GAUGE "oldest_silence_seconds"
        "Time since the last payload of the connection that has been silent for longest.";
    SUSPECTED_LEAKED = GAUGE "suspected_leaked_connections"
        "Open connections that open findings accuse; one may count as growing and for one more reason.";
    FINDINGS = COUNTER "findings_total"
        "Findings that have arisen.";
    FINDINGS_RETRACTED = COUNTER "findings_retracted_total"
        "Findings that turned out not to be so, or ceased to be.";
    CONNECTION_IDLE = HISTOGRAM "connection_idle_seconds"
        "How long connections without an unanswered request had been silent, observed once per connection and interval.";
    EVENTS = COUNTER "events_total"
        "Events that the kernel programs have sent.";
    EVENTS_LOST = COUNTER "events_lost_total"
        "Events lost on the way from the kernel; each is made up for within one interval.";
    MAP_FULL = COUNTER "map_full_total"
        "What was not recorded because the table for it was full.";
    RECONCILED = COUNTER "reconciled_total"
        "Corrections after the kernel's own list of sockets.";
    STACKS = COUNTER "stacks_total"
        "Stacks that were wanted, by how they came out.";
    STACK_COPIES = COUNTER "stack_copies_total"
        "Stacks of connects and requests, by whether the kernel programs copied them.";
    BPF_RUN_TIME = COUNTER "bpf_run_time_seconds_total"
        "Time that the kernel has spent in each of this tracer's programs.";
    BPF_RUN_COUNT = COUNTER "bpf_run_count_total"
        "How often the kernel has run each of this tracer's programs.";
    BPF_CORES = GAUGE "bpf_cores"
        "Cores that this tracer's programs in the kernel have kept busy on average, from a second in thirty.";
    BPF_SKIPPED = COUNTER "bpf_skipped_runs_total"
        "Runs of this tracer's programs that the kernel has skipped, whatever socket they were about.";
    SERIES_FOLDED = COUNTER "series_folded_total"
        "Groups of connections counted as comm=\"other\" because there were too many to tell apart.";
    CONNECTION_LIMIT = GAUGE "connection_limit_connections"
        "How many connections the pool or the server allows, as given by --limit.";
    SERVER_UP = GAUGE "server_up"
        "Whether the server that was asked for its sessions has answered.";
    SERVER_USED = GAUGE "server_used_connections"
        "Connections of the server that are taken, by its own word.";
    SERVER_MAX = GAUGE "server_max_connections"
        "Connections that the server allows.";
    LAST_EVALUATION = GAUGE "last_evaluation_timestamp_seconds"
        "When connections were evaluated last, in Unix time.";
    INTERVAL = GAUGE "interval_seconds"
        "How often connections are evaluated.";
    BUILD_INFO = GAUGE "build_info"
        "1, with the version and revision of this program as labels.";
    PROCESS_CPU = COUNTER "process_cpu_seconds_total"
        "CPU time that this program has used, user and system.";
    PROCESS_MEMORY = GAUGE "process_resident_memory_bytes"
        "Resident memory of this program.";
    PROCESS_VIRTUAL = GAUGE "process_virtual_memory_bytes"
        "Virtual memory of this program.";
    PROCESS_START = GAUGE "process_start_time_seconds"
        "When this program was started, in Unix time.";
}

impl Name {
    /// The whole name: what concerns the process itself has the names that every exporter uses.
    pub(super) fn full(&self) -> String {
        let own = self.name.starts_with("process_");
        if own { self.name.to_owned() } else { format!("{NAMESPACE}{}", self.name) }
    }
}
