//! The data of all metrics at the end of an interval.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crate::engine::detect::Reason;
use crate::engine::findings::Count;
use crate::engine::snapshot::Snapshot;
use crate::engine::table::{Losses, ServerStatus};
use crate::model::Health;
use crate::outputs::prometheus::accounts::{Balance, MAX_GROUPS};
use crate::outputs::prometheus::group::LabelSet;

/// A PostgreSQL server of the server join.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) name: String,
    pub(super) up: bool,
    pub(super) used: Option<usize>,
    pub(super) max: Option<u32>,
}

/// The data at one moment.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    pub(super) balance: Balance,
    /// Threads that wait for a connection, by process name and pod; the server is unknown.
    pub(super) waiting: Vec<(LabelSet, u64)>,
    pub(super) findings: Vec<(Reason, Count)>,
    pub(super) health: Health,
    pub(super) losses: Losses,
    pub(super) servers: Vec<Server>,
    pub(super) limit: Option<u64>,
    pub(super) interval: Duration,
    pub(super) evaluated_at: SystemTime,
    pub(super) version: String,
}

impl Figures {
    pub(super) fn new(snapshot: &Snapshot<'_>, balance: Balance) -> Self {
        let server = |(name, server): (&String, &crate::engine::table::Server)| Server {
            name: name.clone(),
            up: server.status == ServerStatus::Answering,
            used: server.used,
            max: server.settings.as_ref().map(|settings| settings.max_connections),
        };
        Self {
            balance,
            waiting: waiting(snapshot),
            findings: snapshot.ledger.counts().collect(),
            health: snapshot.health.clone(),
            losses: snapshot.table.losses(),
            servers: snapshot.table.servers().iter().map(server).collect(),
            limit: snapshot.thresholds.limit,
            interval: snapshot.thresholds.interval,
            evaluated_at: snapshot.clock.wall(snapshot.now),
            version: snapshot.run.version.clone(),
        }
    }
}

fn waiting(snapshot: &Snapshot<'_>) -> Vec<(LabelSet, u64)> {
    let mut sums: BTreeMap<LabelSet, u64> = BTreeMap::new();
    for (process, waiting) in snapshot.waiting() {
        let pod = snapshot.processes.get(&process).and_then(|info| info.pod.clone());
        let comm = snapshot.comm(process).unwrap_or_default().to_owned();
        let set = LabelSet { comm, destination: String::new(), pod };
        if sums.len() < MAX_GROUPS || sums.contains_key(&set) {
            *sums.entry(set).or_default() += waiting.count();
        }
    }
    sums.into_iter().collect()
}
