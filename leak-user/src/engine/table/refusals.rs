//! Connections that servers have refused because they had no slot left.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::model::{ProcessKey, Timestamp, Wire};

/// SQLSTATE `too_many_connections`: of the server, of a role or of a database.
const TOO_MANY: &str = "53300";
/// Most servers, and most processes and texts of one server, that are told apart.
const MAX_SERVERS: usize = 1024;
const MAX_PROCESSES: usize = 256;
const MAX_TEXTS: usize = 16;

/// The refusals of one server.
#[derive(Clone, Debug)]
pub struct Refusals {
    /// The process that it refused first.
    pub first: ProcessKey,
    /// How many connections it refused.
    pub count: u64,
    /// When it refused the latest one.
    pub latest_at: Timestamp,
    /// How many of each process.
    pub by_process: BTreeMap<ProcessKey, u64>,
    /// How many in these words.
    pub said: BTreeMap<String, u64>,
}

/// The refusals of all servers.
#[derive(Debug, Default)]
pub(super) struct AllRefusals(BTreeMap<SocketAddr, Refusals>);

impl AllRefusals {
    /// By server.
    pub(super) fn by_server(&self) -> impl Iterator<Item = (SocketAddr, &Refusals)> {
        self.0.iter().map(|(&server, refusals)| (server, refusals))
    }

    /// Learns that a server has refused a connection for the reason in `wire`.
    pub(super) fn note(
        &mut self,
        server: SocketAddr,
        process: ProcessKey,
        wire: &Wire,
        at: Timestamp,
    ) {
        let has_room = self.0.len() < MAX_SERVERS || self.0.contains_key(&server);
        if wire.refused.as_deref() != Some(TOO_MANY) || !has_room {
            return;
        }
        let refusals = self.0.entry(server).or_insert_with(|| Refusals {
            first: process,
            count: 0,
            latest_at: at,
            by_process: BTreeMap::new(),
            said: BTreeMap::new(),
        });
        refusals.count += 1;
        refusals.latest_at = refusals.latest_at.max(at);
        count(&mut refusals.by_process, process, MAX_PROCESSES);
        if let Some(why) = &wire.refused_why {
            count(&mut refusals.said, why.clone(), MAX_TEXTS);
        }
    }

    /// Forgets servers that have refused nothing since `since`.
    pub(super) fn forget_before(&mut self, since: Timestamp) {
        self.0.retain(|_, refusals| refusals.latest_at >= since);
    }
}

fn count<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K, most: usize) {
    if counts.len() < most || counts.contains_key(&key) {
        *counts.entry(key).or_default() += 1;
    }
}
