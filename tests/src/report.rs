//! The fields of reports and events that tests read: a part of docs/report.schema.json and
//! docs/ndjson.schema.json. Every document that tests read is validated against these schemas.

#![expect(missing_docs, reason = "docs/report.schema.json describes the fields")]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use anyhow::{Context, Result, anyhow, bail, ensure};
use jsonschema::Validator;
use serde::Deserialize;
use serde_json::Value;

/// The schema of `-o json`.
static REPORT: LazyLock<Validator> =
    LazyLock::new(|| validator(include_str!("../../docs/report.schema.json")));

/// The schema of a line of `-o ndjson`.
static LINE: LazyLock<Validator> =
    LazyLock::new(|| validator(include_str!("../../docs/ndjson.schema.json")));

fn validator(schema: &str) -> Validator {
    let schema = serde_json::from_str(schema).expect("docs/ holds JSON");
    jsonschema::options()
        .should_validate_formats(true)
        .build(&schema)
        .expect("docs/ holds a JSON schema")
}

/// The document of `-o json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Report {
    pub hooks: BTreeMap<String, String>,
    pub ports: Vec<u16>,
    pub verdict: Verdict,
    pub events: Counts,
    pub skipped_runs: u64,
    pub stack_quality: StackQuality,
    pub processes: Vec<Process>,
    pub connections: Vec<Connection>,
    pub stacks: BTreeMap<String, Stack>,
    pub findings: Vec<Finding>,
    pub servers: Vec<Server>,
}

/// What a run comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Verdict {
    pub leaks: usize,
    pub suspects: usize,
    pub unknown_older: usize,
}

/// A PostgreSQL server that the tracer asked for its sessions.
#[derive(Clone, Debug, Deserialize)]
pub struct Server {
    pub status: String,
    pub message: Option<String>,
    pub max_connections: Option<u64>,
    pub used: Option<u64>,
    pub traced: Option<u64>,
    pub full: bool,
    pub hidden: u64,
    pub refusals: u64,
    pub failures: u64,
    pub applications: Vec<Sessions>,
    pub unowned: Vec<Sessions>,
}

/// A group of sessions.
#[derive(Clone, Debug, Deserialize)]
pub struct Sessions {
    pub client_addr: Option<String>,
    pub application_name: Option<String>,
    pub user: Option<String>,
    pub count: u64,
    pub traced: Option<u64>,
    pub states: BTreeMap<String, u64>,
}

/// The server's view of a connection.
#[derive(Clone, Debug, Deserialize)]
pub struct Session {
    pub server: String,
    pub pid: u64,
    pub application_name: Option<String>,
    pub state: Option<String>,
    pub xact_ms: Option<u64>,
    pub wait_event: Option<String>,
    pub query: Option<String>,
}

/// Counts of the kernel's events.
#[derive(Clone, Debug, Deserialize)]
pub struct Counts {
    pub received: u64,
    pub lost: u64,
    pub reconciled: u64,
}

/// Counts of resolved stacks, by outcome.
#[derive(Clone, Debug, Deserialize)]
pub struct StackQuality {
    pub complete: u64,
    pub truncated: u64,
    pub none: u64,
    pub reasons: BTreeMap<String, u64>,
}

/// A traced process.
#[derive(Clone, Debug, Deserialize)]
pub struct Process {
    pub pid: u32,
    pub container_pid: Option<u32>,
    pub container_id: Option<String>,
    pub pod_uid: Option<String>,
    pub pod: Option<Pod>,
    pub comm: Option<String>,
    pub open: u64,
    pub opened_total: u64,
    pub closed_total: u64,
    pub peak_open: u64,
    pub refused: BTreeMap<String, u64>,
    pub waiting: Option<Vec<Waiting>>,
}

/// Threads or goroutines that wait for a connection.
#[derive(Clone, Debug, Deserialize)]
pub struct Waiting {
    pub count: u64,
    pub longest_ms: Option<u64>,
    pub stack: String,
    pub culprit: Option<Culprit>,
}

/// The pod of a process.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub container: String,
    pub labels: BTreeMap<String, String>,
}

/// An open connection.
#[derive(Clone, Debug, Deserialize)]
pub struct Connection {
    pub id: u64,
    pub pid: Option<u32>,
    pub tid: Option<u32>,
    pub goroutine: Option<u64>,
    pub held_by: Vec<u32>,
    pub local: String,
    pub remote: String,
    pub destination: Option<Destination>,
    pub tcp_state: String,
    pub wire: Wire,
    pub opened_before_trace: bool,
    pub silent_ms: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub unread_bytes: Option<u64>,
    pub opened_by: Option<String>,
    pub last_used_by: Option<String>,
    pub last_used_goroutine: Option<u64>,
    pub server: Option<Session>,
    pub uses: Option<Vec<Use>>,
    pub r#use: ConnectionUse,
}

/// Where a connection is now.
#[derive(Clone, Debug, Deserialize)]
pub struct ConnectionUse {
    pub state: String,
    pub by: Option<String>,
    pub holder: Option<Holder>,
}

/// Whose call that used a connection is still on its stack.
#[derive(Clone, Debug, Deserialize)]
pub struct Holder {
    pub pid: u32,
    pub tid: u32,
    pub goroutine: Option<u64>,
    pub stack: Option<String>,
}

/// The Kubernetes object that has a server's address.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Destination {
    pub kind: String,
    pub namespace: String,
    pub name: String,
}

/// A use of a connection.
#[derive(Clone, Debug, Deserialize)]
pub struct Use {
    pub acquired_at: String,
    pub released_at: Option<String>,
    pub pid: u32,
    pub tid: u32,
    pub stack: Option<String>,
}

/// The wire state of a connection.
#[derive(Clone, Debug, Deserialize)]
pub struct Wire {
    pub state: String,
    pub tls: bool,
    pub listens: bool,
    pub user: Option<String>,
    pub database: Option<String>,
    pub application_name: Option<String>,
    pub backend_pid: Option<u64>,
    pub source: Option<String>,
}

/// A stack, innermost frame first.
#[derive(Clone, Debug, Deserialize)]
pub struct Stack {
    pub quality: String,
    pub quality_reason: Option<String>,
    pub language: String,
    pub frames: Vec<Frame>,
}

/// A frame of a stack.
#[derive(Clone, Debug, Deserialize)]
pub struct Frame {
    pub function: Option<String>,
    pub module: Option<String>,
    pub file: Option<String>,
    pub line: Option<u32>,
    pub address: u64,
}

/// A finding.
#[derive(Clone, Debug, Deserialize)]
pub struct Finding {
    pub reason: String,
    pub severity: String,
    pub connections: Vec<u64>,
    pub count: u64,
    pub evidence: String,
    pub stack_of: Option<String>,
    pub stack: Option<String>,
    pub culprit: Option<Culprit>,
    pub retracted_at: Option<Value>,
    pub fate: String,
    pub culprit_from: Option<String>,
    pub culprit_candidates: Vec<Culprit>,
    pub server_messages: Vec<String>,
    pub holders: Vec<SlotHolder>,
}

/// Connections that hold slots of a full server.
#[derive(Clone, Debug, Deserialize)]
pub struct SlotHolder {
    pub count: usize,
    pub culprit: Option<Culprit>,
}

/// The culprit: the innermost frame that belongs to the application.
#[derive(Clone, Debug, Deserialize)]
pub struct Culprit {
    pub function: Option<String>,
    pub file: Option<String>,
    pub line: Option<u32>,
}

impl Stack {
    /// Names of the stack's functions, innermost first.
    #[must_use]
    pub fn functions(&self) -> Vec<&str> {
        self.frames.iter().map(|frame| frame.function.as_deref().unwrap_or("?")).collect()
    }

    /// The innermost frame of this function.
    pub fn frame(&self, function: &str) -> Result<&Frame> {
        let found = self.frames.iter().find(|frame| frame.function.as_deref() == Some(function));
        found.with_context(|| {
            format!("no {function} in {:?} ({:?})", self.functions(), self.quality_reason)
        })
    }
}

impl Finding {
    /// The name of the culprit's function, if there is one.
    #[must_use]
    pub fn function(&self) -> Option<&str> {
        self.culprit.as_ref()?.function.as_deref()
    }

    /// Whether the severity is `info`.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        self.reason == "silent" || self.reason == "abandoned"
    }

    /// Whether the severity is `leak`.
    #[must_use]
    pub fn is_leak(&self) -> bool {
        self.severity == "leak"
    }
}

impl Report {
    /// Reads the output of a trace with `-o json` or `-o ndjson`.
    pub fn printed(stdout: &str) -> Result<Self> {
        let mut last = None;
        for document in serde_json::Deserializer::from_str(stdout).into_iter::<Value>() {
            let document = document.with_context(|| format!("no JSON: {stdout}"))?;
            if document.get("event").is_some() {
                follows(&LINE, &document)?;
            }
            last = Some(document);
        }
        Self::read(&last.context("nothing was printed")?)
    }

    /// Reads a document of `-o json`, or the last line of `-o ndjson`.
    pub fn read(document: &Value) -> Result<Self> {
        follows(&REPORT, document)?;
        let report = Self::deserialize(document).context("a field for the tests is missing")?;
        for stack in report.findings.iter().filter_map(|finding| finding.stack.as_ref()) {
            ensure!(report.stacks.contains_key(stack), "a finding's stack {stack} is missing");
        }
        Ok(report)
    }

    /// The connection with this id.
    pub fn connection(&self, id: u64) -> Result<&Connection> {
        let found = self.connections.iter().find(|connection| connection.id == id);
        found.with_context(|| format!("no connection {id} among {:#?}", self.connections))
    }

    /// The only connection.
    pub fn only_connection(&self) -> Result<&Connection> {
        match self.connections.as_slice() {
            [connection] => Ok(connection),
            other => bail!("one connection expected, not {other:#?}"),
        }
    }

    /// The only server.
    pub fn only_server(&self) -> Result<&Server> {
        match self.servers.as_slice() {
            [server] => Ok(server),
            other => bail!("one server expected, not {other:#?}"),
        }
    }

    /// The process with this PID.
    pub fn process(&self, pid: u32) -> Result<&Process> {
        let found = self.processes.iter().find(|process| process.pid == pid);
        found.with_context(|| format!("no process {pid} among {:?}", self.processes))
    }

    /// The stack with this id.
    pub fn stack(&self, id: Option<&String>) -> Result<&Stack> {
        let id = id.context("there is no stack")?;
        self.stacks.get(id).with_context(|| format!("no stack {id} in the report"))
    }

    /// The findings of severity `leak` that have not been retracted.
    #[must_use]
    pub fn leaks(&self) -> Vec<&Finding> {
        let standing = |finding: &&Finding| finding.is_leak() && finding.retracted_at.is_none();
        self.findings.iter().filter(standing).collect()
    }
}

/// Validates a document against its schema.
fn follows(schema: &Validator, printed: &Value) -> Result<()> {
    schema
        .validate(printed)
        .map_err(|error| anyhow!("the schema is broken at {}: {error}", error.instance_path()))
}

/// A line of `-o ndjson`.
#[derive(Clone, Debug)]
pub struct Event {
    /// The kind of event.
    pub kind: String,
    /// The whole line.
    pub value: Value,
}

impl Event {
    /// Parses a line; `None` if it is not an event.
    #[must_use]
    pub fn read(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        Some(Self { kind: value.get("event")?.as_str()?.to_owned(), value })
    }

    /// A field of the event.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.value.get(name)
    }

    /// The id of the connection that the event is about.
    #[must_use]
    pub fn id(&self) -> Option<u64> {
        self.field("id")?.as_u64()
    }

    /// The resolve times of all stacks in an `interval` event, in microseconds.
    #[must_use]
    pub fn stack_times(&self) -> Vec<u64> {
        let times = self.field("stacks_us").and_then(Value::as_array);
        times.into_iter().flatten().filter_map(Value::as_u64).collect()
    }

    /// The finding that the event carries.
    #[must_use]
    pub fn finding(&self) -> Option<Finding> {
        Finding::deserialize(&self.value).ok()
    }
}
