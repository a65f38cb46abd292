//! Programs' own pools.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use crate::engine::snapshot::Snapshot;
use crate::engine::table::ProgramPool;

/// A program's own pool of connections, by its own numbers, read from its memory.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Pool")]
pub(super) struct PoolModel<'a> {
    /// The program.
    process: PoolProcess<'a>,
    /// The server that most of its connections lead to. Null when none is known.
    remote: Option<String>,
    /// Whose pool it is: `database/sql`.
    kind: &'a str,
    /// Connections that are open or being opened. This and the following are null when the pool
    /// never stood still while it was read.
    open: Option<u64>,
    /// Connections that are not idle.
    in_use: Option<u64>,
    /// Connections that wait in the pool to be used.
    idle: Option<u64>,
    /// Most connections that it opens. Null also when there is no limit.
    max_open: Option<u64>,
    /// Callers who wait for a connection.
    waiting: Option<u64>,
    /// Callers who have had to wait so far.
    wait_count: Option<u64>,
    /// How long they have waited so far, in milliseconds; those who still wait are not counted in.
    wait_ms: Option<u64>,
}

/// A process, in short.
#[derive(Serialize, JsonSchema)]
struct PoolProcess<'a> {
    /// PID as the machine numbers it.
    pid: u32,
    /// Name of its main thread. Null when it was not seen.
    comm: Option<&'a str>,
}

impl<'a> PoolModel<'a> {
    pub(super) fn new(snapshot: &Snapshot<'a>, read: ProgramPool<'a>) -> Self {
        let numbers = read.pool.numbers;
        let wait = numbers.and_then(|numbers| numbers.wait_nanoseconds);
        let milliseconds =
            |nanoseconds| u64::try_from(Duration::from_nanos(nanoseconds).as_millis()).ok();
        Self {
            process: PoolProcess { pid: read.process.pid, comm: snapshot.comm(read.process) },
            remote: snapshot.remote_of(read).map(|remote| remote.to_string()),
            kind: &read.pool.kind,
            open: numbers.map(|numbers| numbers.open),
            in_use: numbers.map(|numbers| numbers.in_use()),
            idle: numbers.map(|numbers| numbers.idle),
            max_open: numbers.and_then(|numbers| numbers.max_open),
            waiting: numbers.and_then(|numbers| numbers.waiting),
            wait_count: numbers.and_then(|numbers| numbers.wait_count),
            wait_ms: wait.and_then(milliseconds),
        }
    }
}
