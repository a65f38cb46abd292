//! The books: what was counted for each set of labels, from one interval to the next.
//!
//! The table counts per process, and processes come and go. Series must not: a counter that falls
//! looks like a restart, and one that vanishes takes its last increments with it. So what a process
//! has counted since the last look is added to its series, and a series stays for a while after its
//! last process is gone. There is a bound on series; what would exceed it is counted together.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use crate::engine::detect::Severity;
use crate::engine::snapshot::Snapshot;
use crate::engine::table::Tally;
use crate::model::{ProcessKey, Timestamp};
use crate::outputs::prometheus::group::{Group, LabelSet};
use crate::outputs::prometheus::names::OTHER;

/// Most sets of labels told apart.
pub(super) const MAX_GROUPS: usize = 1000;

/// How long a series stays when its processes are gone: longer than Prometheus looks back (5 min)
/// and than any usual interval between scrapes.
pub(super) const RETENTION: Duration = Duration::from_secs(15 * 60);

/// Connections of one process to one server.
type Pair = (ProcessKey, SocketAddr);

/// All groups, and what they have taken in of each process.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    groups: BTreeMap<LabelSet, Group>,
    /// All that found no room; `None` as long as there was room.
    other: Option<Group>,
    /// What is already in the books of each process that the table knows.
    seen: HashMap<Pair, Seen>,
    /// The same of the processes that the table has forgotten, by name and server.
    seen_of_forgotten: BTreeMap<(String, SocketAddr), Counted>,
    /// Pairs that found no room.
    folded: u64,
    kubernetes: bool,
}

/// What is in the books of a pair.
#[derive(Clone, Debug, Default)]
struct Seen {
    comm: String,
    counted: Counted,
    folded: bool,
}

/// The books at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Balance {
    pub(super) groups: Vec<(LabelSet, Group)>,
    pub(super) folded: u64,
    /// A pod was seen: then the labels are there for every process, empty where it has none, so
    /// that a scraper which honours labels does not put its own in their place.
    pub(super) kubernetes: bool,
}

impl Accounts {
    /// Takes in what the table says now.
    pub(super) fn observe(&mut self, snapshot: &Snapshot<'_>) {
        let now = snapshot.now;
        self.groups.values_mut().chain(&mut self.other).for_each(Group::clear_gauges);
        let labels = self.take_tallies(snapshot);
        let silent_after = snapshot.thresholds.silent_after;
        for connection in snapshot.table.connections() {
            let pair = (connection.process, connection.endpoints.remote);
            self.group(labels.get(&pair)).add(connection, silent_after, now);
        }
        for finding in snapshot.ledger.open() {
            let verdict = &finding.verdict;
            if verdict.severity < Severity::Suspect {
                continue;
            }
            // Those of a process that has exited are no longer open.
            let open = verdict.connections.iter().filter_map(|&id| snapshot.table.get(id));
            for connection in open {
                let pair = (connection.process, connection.endpoints.remote);
                let suspected = &mut self.group(labels.get(&pair)).suspected;
                *suspected.entry((verdict.reason, verdict.severity)).or_default() += 1;
            }
        }
        self.groups.retain(|_, group| now.since(group.alive_at) <= RETENTION);
    }

    /// What the books say now.
    pub(super) fn balance(&self) -> Balance {
        let other = || LabelSet { comm: OTHER.into(), destination: OTHER.into(), pod: None };
        let other = self.other.iter().map(|group| (other(), group.clone()));
        let groups = self.groups.iter().map(|(labels, group)| (labels.clone(), group.clone()));
        Balance {
            groups: groups.chain(other).collect(),
            folded: self.folded,
            kubernetes: self.kubernetes,
        }
    }

    /// Adds what processes have counted since the last look, and gives the labels of each pair that
    /// counts now.
    fn take_tallies(&mut self, snapshot: &Snapshot<'_>) -> HashMap<Pair, LabelSet> {
        let mut labels = HashMap::new();
        let mut before = std::mem::take(&mut self.seen);
        let mut forgotten: BTreeMap<(String, SocketAddr), Counted> = BTreeMap::new();
        for (process, tally) in snapshot.table.processes() {
            let alive = !snapshot.exited.contains(&process);
            let comm = tally.comm.as_deref().unwrap_or_default();
            for (&remote, tally) in &tally.by_remote {
                let pair = (process, remote);
                let mut seen = before.remove(&pair).unwrap_or_default();
                let total = Counted::of(tally);
                let new = total.checked_sub(seen.counted).unwrap_or_else(|| {
                    // The table had forgotten it, and it has begun anew.
                    let known = forgotten.entry((seen.comm.clone(), remote)).or_default();
                    *known = known.plus(seen.counted);
                    total
                });
                if alive || tally.open > 0 || new != Counted::default() {
                    let set = label_set(snapshot, process, remote);
                    self.kubernetes |= set.pod.is_some();
                    let has_room = self.add(&set, new, snapshot.now);
                    self.folded += u64::from(!has_room && !seen.folded);
                    seen.folded = !has_room;
                    labels.insert(pair, set);
                }
                comm.clone_into(&mut seen.comm);
                seen.counted = total;
                self.seen.insert(pair, seen);
            }
        }
        for ((_, remote), Seen { comm, counted, .. }) in before {
            let known = forgotten.entry((comm, remote)).or_default();
            *known = known.plus(counted);
        }
        self.take_forgotten(snapshot, &forgotten);
        labels
    }

    /// Adds what processes have counted between the last look and being forgotten by the table:
    /// where very many come and go, some are never seen. `known` is what the books have of them.
    fn take_forgotten(
        &mut self,
        snapshot: &Snapshot<'_>,
        known: &BTreeMap<(String, SocketAddr), Counted>,
    ) {
        for (key, tally) in snapshot.table.forgotten_tallies() {
            let total = Counted::of(tally);
            let before = self.seen_of_forgotten.insert(key.clone(), total).unwrap_or_default();
            let known = known.get(key).copied().unwrap_or_default();
            let new = total.checked_sub(before.plus(known)).unwrap_or_default();
            if new != Counted::default() {
                let (comm, remote) = key.clone();
                let set = LabelSet { comm, destination: remote.to_string(), pod: None };
                self.add(&set, new, snapshot.now);
            }
        }
    }

    /// Adds to a group and says whether it is one of its own.
    fn add(&mut self, set: &LabelSet, new: Counted, now: Timestamp) -> bool {
        let has_room = self.groups.len() < MAX_GROUPS || self.groups.contains_key(set);
        let group = if has_room {
            self.groups.entry(set.clone()).or_default()
        } else {
            self.other.get_or_insert_default()
        };
        group.opened += new.opened;
        group.closed += new.closed;
        group.failures += new.failures;
        group.alive_at = now;
        has_room
    }

    /// The group with these labels; that of the others where there is none.
    fn group(&mut self, set: Option<&LabelSet>) -> &mut Group {
        match set.and_then(|set| self.groups.get_mut(set)) {
            Some(group) => group,
            None => self.other.get_or_insert_default(),
        }
    }
}

/// Numbers that only rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counted {
    opened: u64,
    closed: u64,
    failures: u64,
}

impl Counted {
    fn of(tally: &Tally) -> Self {
        let Tally { opened_total, closed_total, connect_failures, open: _, peak_open: _ } = *tally;
        Self { opened: opened_total, closed: closed_total, failures: connect_failures }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            opened: self.opened + other.opened,
            closed: self.closed + other.closed,
            failures: self.failures + other.failures,
        }
    }

    fn checked_sub(self, earlier: Self) -> Option<Self> {
        Some(Self {
            opened: self.opened.checked_sub(earlier.opened)?,
            closed: self.closed.checked_sub(earlier.closed)?,
            failures: self.failures.checked_sub(earlier.failures)?,
        })
    }
}

fn label_set(snapshot: &Snapshot<'_>, process: ProcessKey, remote: SocketAddr) -> LabelSet {
    let pod = snapshot.processes.get(&process).and_then(|info| info.pod.clone());
    let comm = snapshot.comm(process).unwrap_or_default().to_owned();
    LabelSet { comm, destination: remote.to_string(), pod }
}

#[cfg(test)]
mod tests;
