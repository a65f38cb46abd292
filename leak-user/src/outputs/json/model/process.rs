//! Processes.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::Time;
use super::waiting::WaitingModel;
use crate::engine::snapshot::Snapshot;
use crate::engine::table::ProcessTally;
use crate::model::time::rfc3339;
use crate::model::{Pod, ProcessKey};

/// A traced process. One that ended before it could be looked at has neither a start nor a program.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Process")]
pub(super) struct ProcessModel<'a> {
    /// PID as the machine numbers it.
    pid: u32,
    /// PID inside its PID namespace. Null when it is in none of its own.
    container_pid: Option<u32>,
    /// When it started. Null when it ended before that could be read.
    started_at: Option<Time>,
    /// Name of its main thread, at most 15 bytes, as `ps -o comm` shows it. Null when it was not
    /// seen.
    comm: Option<&'a str>,
    /// Path of its program, in its own mount namespace. Null when it could not be read.
    exe: Option<&'a str>,
    /// The container runtime's id, 64 hexadecimal digits. Null outside of a container.
    container_id: Option<&'a str>,
    /// UID of its pod, which its cgroup tells. Null outside of a pod.
    pod_uid: Option<&'a str>,
    /// Its pod. Null outside of one, and when neither the API server nor the kubelet was asked.
    pod: Option<PodModel<'a>>,
    /// Connections that are open.
    open: u64,
    /// Connections that it opened while it was traced.
    opened_total: u64,
    /// Connections that ended while it was traced, failed ones among them.
    closed_total: u64,
    /// Most connections that were open at one time.
    peak_open: u64,
    /// Connections that the server refused, by SQLSTATE, as in `"53300": 7` for "too many clients".
    refused: &'a BTreeMap<String, u64>,
    /// Its threads or goroutines that wait for a connection, by stack, the most first. Null when
    /// they were not looked at.
    waiting: Option<Vec<WaitingModel<'a>>>,
}

/// The Kubernetes pod that a process belongs to.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Pod")]
struct PodModel<'a> {
    /// The pod's namespace.
    namespace: &'a str,
    /// The pod's name.
    name: &'a str,
    /// The container's name in the pod's specification.
    container: &'a str,
    /// Those of the pod's labels that `--pod-label` asks for.
    labels: &'a BTreeMap<String, String>,
}

impl<'a> ProcessModel<'a> {
    pub(super) fn new(snapshot: &Snapshot<'a>, key: ProcessKey, tally: &'a ProcessTally) -> Self {
        let info = snapshot.processes.get(&key);
        let described = info.map(|info| info.comm.as_str());
        Self {
            pid: key.pid,
            container_pid: info.and_then(|info| info.container_pid),
            started_at: info.and_then(|info| info.started_at).map(|at| Time(rfc3339(at))),
            comm: described.or(tally.comm.as_deref()),
            exe: info.and_then(|info| info.exe.as_deref()),
            container_id: info.and_then(|info| info.container_id.as_deref()),
            pod_uid: info.and_then(|info| info.pod_uid.as_deref()),
            pod: info.and_then(|info| info.pod.as_ref()).map(PodModel::new),
            open: tally.total.open,
            opened_total: tally.total.opened_total,
            closed_total: tally.total.closed_total,
            peak_open: tally.total.peak_open,
            refused: &tally.refused,
            waiting: snapshot.waiting_in(key).map(|waiting| WaitingModel::all(snapshot, waiting)),
        }
    }
}

impl<'a> PodModel<'a> {
    fn new(pod: &'a Pod) -> Self {
        let Pod { namespace, name, container, labels } = pod;
        Self { namespace, name, container, labels }
    }
}
