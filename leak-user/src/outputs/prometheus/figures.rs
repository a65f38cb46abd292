//! Everything that a scrape tells, as it was at the end of an interval.

use std::time::{Duration, SystemTime};

use crate::engine::detect::Reason;
use crate::engine::findings::Count;
use crate::engine::snapshot::Snapshot;
use crate::engine::table::{Losses, ServerStatus};
use crate::model::cost::Cost;
use crate::outputs::prometheus::accounts::Balance;
use crate::outputs::prometheus::own::OwnCost;
use crate::sources::kernel::{Counters, ProgramRuns};
use leak_stacks::StackCounts;

/// How the tracer itself fares: what a [`Snapshot`] does not say.
#[derive(Clone, Debug, Default)]
pub struct Tracing {
    /// What the kernel programs have counted.
    pub counters: Counters,
    /// Events that could not be decoded.
    pub undecodable: u64,
    /// What the kernel programs cost, where the kernel counts it.
    pub programs: Vec<ProgramRuns>,
    /// How many runs of each kernel program the kernel has skipped.
    pub skipped: Vec<(String, u64)>,
}

/// A server that was asked for its sessions.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) name: String,
    pub(super) up: bool,
    pub(super) used: Option<usize>,
    pub(super) max: Option<u32>,
}

/// The figures of one moment.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    pub(super) balance: Balance,
    pub(super) findings: Vec<(Reason, Count)>,
    pub(super) tracing: Tracing,
    pub(super) losses: Losses,
    pub(super) stacks: StackCounts,
    pub(super) cost: Cost,
    pub(super) servers: Vec<Server>,
    pub(super) limit: Option<u64>,
    pub(super) interval: Duration,
    pub(super) evaluated_at: SystemTime,
    pub(super) version: String,
    pub(super) own: Option<OwnCost>,
}

impl Figures {
    pub(super) fn new(
        snapshot: &Snapshot<'_>,
        balance: Balance,
        tracing: Tracing,
        own: Option<OwnCost>,
    ) -> Self {
        let server = |(name, server): (&String, &crate::engine::table::Server)| Server {
            name: name.clone(),
            up: server.status == ServerStatus::Answering,
            used: server.used,
            max: server.settings.as_ref().map(|settings| settings.max_connections),
        };
        Self {
            balance,
            findings: snapshot.ledger.counts().collect(),
            tracing,
            losses: snapshot.table.losses(),
            stacks: snapshot.events.stacks,
            cost: snapshot.events.cost,
            servers: snapshot.table.servers().iter().map(server).collect(),
            limit: snapshot.thresholds.limit,
            interval: snapshot.thresholds.interval,
            evaluated_at: snapshot.clock.wall(snapshot.now),
            version: snapshot.run.version.clone(),
            own,
        }
    }
}
