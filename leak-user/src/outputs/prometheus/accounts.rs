//! Accumulates the counters of each label set over all intervals.
//!
//! The table counts per process, and processes come and go. Series must not: a counter that falls
//! looks like a restart, and one that vanishes takes its last increments with it. So each interval
//! adds a process's new counts to its series, and a series outlives its last process for a while.
//! The number of series is bounded; further ones are counted together.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use crate::engine::detect::{Scope, Severity};
use crate::engine::snapshot::Snapshot;
use crate::engine::table::Tally;
use crate::model::{ProcessKey, Timestamp};
use crate::outputs::prometheus::group::{Group, LabelSet};
use crate::outputs::prometheus::names::OTHER;

/// Maximum number of label sets.
pub(super) const MAX_GROUPS: usize = 1000;

/// How long a series outlives its processes: longer than Prometheus's lookback (5 min) and than
/// usual scrape intervals.
pub(super) const RETENTION: Duration = Duration::from_secs(15 * 60);

/// Connections of one process to one server.
type Pair = (ProcessKey, SocketAddr);

/// All groups, and the counts of each process that are already added to them.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    groups: BTreeMap<LabelSet, Group>,
    /// The sum of all label sets beyond [`MAX_GROUPS`]; `None` if there are none.
    other: Option<Group>,
    /// The counts already added for each pair that the table has.
    seen: HashMap<Pair, Seen>,
    /// The counts already added for processes that the table has forgotten, by name and server.
    seen_of_forgotten: BTreeMap<(String, SocketAddr), Counted>,
    /// How long callers have waited for each pool, in nanoseconds, as far as it is already added.
    waited: HashMap<(ProcessKey, u64), u64>,
    /// Number of pairs that are counted in `other`.
    folded: u64,
    kubernetes: bool,
}

/// The counts of a pair that are already added to its group.
#[derive(Clone, Debug, Default)]
struct Seen {
    comm: String,
    counted: Counted,
    folded: bool,
}

/// The state of all groups at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Balance {
    pub(super) groups: Vec<(LabelSet, Group)>,
    pub(super) folded: u64,
    /// Whether a pod was seen. Then all series have pod labels, empty for processes outside pods: a
    /// scraper with `honor_labels` would otherwise add its own pod labels.
    pub(super) kubernetes: bool,
}

impl Accounts {
    /// Adds the counts and gauges of a snapshot.
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
            // Who holds the slots of a full server need not be to blame.
            if verdict.severity < Severity::Suspect || verdict.scope() == Scope::Server {
                continue;
            }
            // Connections of exited processes are not open any more.
            let open = verdict.connections.iter().filter_map(|&id| snapshot.table.get(id));
            for connection in open {
                let pair = (connection.process, connection.endpoints.remote);
                let suspected = &mut self.group(labels.get(&pair)).suspected;
                *suspected.entry((verdict.reason, verdict.severity)).or_default() += 1;
            }
        }
        self.take_pools(snapshot, &labels);
        self.groups.retain(|_, group| now.since(group.alive_at) <= RETENTION);
    }

    /// The current state of all groups.
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

    /// Adds what programs' own pools say.
    fn take_pools(&mut self, snapshot: &Snapshot<'_>, labels: &HashMap<Pair, LabelSet>) {
        let mut before = std::mem::take(&mut self.waited);
        for read in snapshot.program_pools() {
            let (pool, key) = (read.pool, (read.process, read.pool.number));
            let known = before.remove(&key);
            let pair = snapshot.remote_of(read).map(|remote| (read.process, remote));
            let labels = pair.and_then(|pair| labels.get(&pair));
            let (Some(numbers), Some(labels)) = (&pool.numbers, labels) else {
                self.waited.extend(known.map(|known| (key, known)));
                continue;
            };
            let waited = numbers.wait_nanoseconds.unwrap_or_default();
            // Less than before: another pool has taken the place.
            let new = waited.checked_sub(known.unwrap_or_default()).unwrap_or(waited);
            self.group(Some(labels)).add_pool(numbers, new);
            self.waited.insert(key, waited);
        }
    }

    /// Adds the counts since the last snapshot, and returns the labels of each pair that is active.
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
                    // The table had forgotten the pair, so its counters started again at zero.
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

    /// Adds the counts of processes between their last snapshot and the time when the table forgot
    /// them. Among very many short-lived processes, some appear in no snapshot. `known` holds the
    /// counts that are already added for these processes.
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

    /// Adds counts to a label set's group. Returns false if the group is `other`.
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

    /// The group with these labels, or `other`.
    fn group(&mut self, set: Option<&LabelSet>) -> &mut Group {
        match set.and_then(|set| self.groups.get_mut(set)) {
            Some(group) => group,
            None => self.other.get_or_insert_default(),
        }
    }
}

/// Counters.
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
