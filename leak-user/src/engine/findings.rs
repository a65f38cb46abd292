//! Findings, from the first verdict to the retraction.
//!
//! Detectors judge each interval anew. The ledger makes findings of their verdicts, which keep
//! their id, know when they arose, and are retracted with a reason. A false accusation that is
//! never taken back costs more trust than a leak that is found late.

mod finding;
mod fingerprint;
mod key;
mod retraction;
mod suppression;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

pub use finding::{Finding, FindingId};
pub use fingerprint::{Fingerprint, NoFingerprint};
pub(in crate::engine) use suppression::Subject;
pub use suppression::{Suppressed, Suppression};

use crate::engine::detect::{PriorAccusations, Reason, RetractionWords, Scope, Severity, Verdict};
use crate::engine::table::ConnectionTable;
use crate::model::{ConnectionId, ProcessKey, Timestamp};
use key::{FindingKey, by_key};
use retraction::Retractions;

/// Most retracted findings remembered.
const MAX_RETRACTED: usize = 512;

/// How long a process may take to end once it has closed its connections.
const TEARDOWN: Duration = Duration::from_secs(5);

/// Most findings kept about processes that have exited.
const MAX_FROZEN: usize = 512;

/// How a finding changed.
#[derive(Clone, Debug)]
pub enum Change {
    /// It is new.
    Opened(Finding),
    /// Its severity or its connections changed; says what became of connections that left, if any
    /// did.
    Updated(Finding, Option<String>),
    /// It is no longer true; says why.
    Retracted(Finding, String),
}

impl Change {
    /// The finding as it is now.
    #[must_use]
    pub fn finding(&self) -> &Finding {
        match self {
            Self::Opened(finding) | Self::Updated(finding, _) | Self::Retracted(finding, _) => {
                finding
            }
        }
    }
}

/// How many findings there have been.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Opened.
    pub found: u64,
    /// Retracted.
    pub retracted: u64,
}

/// All findings.
#[derive(Debug, Default)]
pub struct Ledger {
    open: Vec<Finding>,
    retracted: VecDeque<Finding>,
    counts: BTreeMap<Reason, Count>,
    last_id: u64,
}

impl Ledger {
    /// Takes in what [`crate::engine::detect::evaluate`] says of `table` at `now`.
    pub fn update(
        &mut self,
        verdicts: Vec<Verdict>,
        table: &ConnectionTable,
        now: Timestamp,
    ) -> Vec<Change> {
        let judged: HashMap<ConnectionId, Reason> = verdicts
            .iter()
            .filter(|verdict| verdict.scope() == Scope::Connections)
            .flat_map(|verdict| verdict.connections.iter().map(|&id| (id, verdict.reason)))
            .collect();
        let (frozen, former): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.open).into_iter().partition(|finding| finding.frozen);
        self.open = frozen;
        let frozen = by_key(&self.open);
        let mut former = by_key(former);
        let (known, new): (Vec<_>, Vec<_>) = verdicts
            .into_iter()
            .filter(|verdict| {
                let mut frozen = frozen.get(&FindingKey::of(verdict)).into_iter().flatten();
                !frozen.any(|finding| finding.has_said(verdict))
            })
            .partition(|verdict| {
                let mut former = former.get(&FindingKey::of(verdict)).into_iter().flatten();
                former.any(|finding| finding.covers(verdict))
            });
        let mut changes = Vec::new();
        let retractions = Retractions { table, judged: &judged, now };
        for verdict in known.into_iter().chain(new) {
            let silences = silences(&verdict, table, now);
            let alike = former.get_mut(&FindingKey::of(&verdict));
            let Some(mut finding) = alike.and_then(|alike| take_former(alike, &verdict)) else {
                changes.push(Change::Opened(self.open_new(verdict, silences, now)));
                continue;
            };
            let left = finding.accused.iter().filter(|(id, _)| !silences.contains_key(id));
            let left: Vec<_> = left.map(|(&id, &since)| (id, since)).collect();
            let changed = finding.verdict.severity != verdict.severity
                || finding.verdict.cause != verdict.cause
                || finding.verdict.connections != verdict.connections;
            // A pool's newest connections change all the time; what it is accused of does not.
            let worth_telling = match verdict.scope() {
                Scope::Pool | Scope::Server => finding.verdict.severity != verdict.severity,
                Scope::Connections => changed,
            };
            let sentence = retractions.sentence(&verdict, &left);
            if !finding.tells_more_than(&verdict) {
                finding.verdict = verdict;
                finding.accused = silences;
            }
            if worth_telling {
                changes.push(Change::Updated(finding.clone(), sentence));
            }
            self.open.push(finding);
        }
        let mut former: Vec<Finding> = former.into_values().flatten().collect();
        former.sort_unstable_by_key(|finding| finding.id);
        for mut finding in former {
            let left: Vec<_> = finding.accused.iter().map(|(&id, &since)| (id, since)).collect();
            let sentence = retractions.sentence(&finding.verdict, &left);
            finding.retracted_at = Some(now);
            finding.closed = left.iter().all(|(id, _)| table.get(*id).is_none());
            self.count(finding.verdict.reason).retracted += 1;
            self.remember(finding.clone());
            let why = sentence.unwrap_or_else(|| RetractionWords::default().over.to_owned());
            changes.push(Change::Retracted(finding, why));
        }
        changes
    }

    /// Learns that a process has exited, before its connections end with it.
    ///
    /// What it had leaked until then it never gave back: its open findings of severity leak stay as
    /// they are, neither updated nor retracted. Its other findings are judged as usual. Beyond a
    /// limit the oldest findings about exited processes are dropped, not retracted.
    pub fn process_exited(&mut self, process: ProcessKey) -> Vec<Change> {
        let mut changes = Vec::new();
        for finding in &mut self.open {
            let verdict = &finding.verdict;
            let is_leak = verdict.process == process && verdict.severity == Severity::Leak;
            if is_leak && !finding.frozen {
                finding.frozen = true;
                changes.push(Change::Updated(finding.clone(), None));
            }
        }
        self.drop_oldest_frozen();
        changes
    }

    fn drop_oldest_frozen(&mut self) {
        let frozen = self.open.iter().filter(|finding| finding.frozen).count();
        for _ in MAX_FROZEN..frozen {
            let frozen = self.open.iter().enumerate().filter(|(_, finding)| finding.frozen);
            if let Some((index, _)) = frozen.min_by_key(|(_, finding)| finding.id) {
                self.open.remove(index);
            }
        }
    }

    /// Learns which processes have exited by `now`. Many programs close everything as they end:
    /// what was retracted by that was never mended.
    pub(in crate::engine) fn note_teardown(
        &mut self,
        exited: &HashSet<ProcessKey>,
        now: Timestamp,
    ) {
        for finding in &mut self.retracted {
            let is_recent = |at: Timestamp| now.since(at) <= TEARDOWN;
            finding.torn_down |= finding.closed
                && finding.verdict.severity == Severity::Leak
                && finding.retracted_at.is_some_and(is_recent)
                && exited.contains(&finding.verdict.process);
        }
    }

    /// Retracted leaks whose connections were closed only as their process ended.
    pub(in crate::engine) fn torn_down(&self) -> usize {
        self.retracted.iter().filter(|finding| finding.torn_down).count()
    }

    /// The findings that are true now, or were when their process exited: servers without a slot
    /// first, then the heaviest, then the biggest.
    #[must_use]
    pub fn open(&self) -> Vec<&Finding> {
        let mut open: Vec<_> = self.open.iter().collect();
        open.sort_by_key(|finding| {
            let verdict = &finding.verdict;
            let is_server = verdict.scope() == Scope::Server;
            let weight = (is_server, verdict.severity, verdict.connections.len());
            (std::cmp::Reverse(weight), finding.id)
        });
        open
    }

    /// Retracted findings, the latest last; the oldest and lightest are forgotten.
    pub fn retracted(&self) -> impl Iterator<Item = &Finding> {
        self.retracted.iter()
    }

    /// How many findings of this severity are open.
    #[must_use]
    pub fn open_of(&self, severity: Severity) -> usize {
        self.open.iter().filter(|finding| finding.verdict.severity == severity).count()
    }

    /// How often a reason was found and retracted, for every reason.
    pub fn counts(&self) -> impl Iterator<Item = (Reason, Count)> {
        Reason::ALL
            .iter()
            .map(|&reason| (reason, self.counts.get(&reason).copied().unwrap_or_default()))
    }

    /// What connections stand accused of, for the next evaluation.
    #[must_use]
    pub fn accusations(&self) -> PriorAccusations {
        let mut accusations = PriorAccusations::new();
        for finding in &self.open {
            // What is only suspected does not become a leak by lasting.
            if finding.verdict.severity == Severity::Leak {
                let reason = finding.verdict.reason;
                let accused = finding.accused.iter();
                accusations.extend(accused.map(|(&id, &since)| ((reason, id), since)));
            }
        }
        accusations
    }

    fn open_new(
        &mut self,
        verdict: Verdict,
        accused: BTreeMap<ConnectionId, Timestamp>,
        now: Timestamp,
    ) -> Finding {
        self.last_id += 1;
        self.count(verdict.reason).found += 1;
        let id = FindingId(self.last_id);
        let finding = Finding {
            id,
            frozen: verdict.is_final(),
            verdict,
            since: now,
            retracted_at: None,
            closed: false,
            torn_down: false,
            accused,
        };
        let frozen = finding.frozen;
        self.open.push(finding.clone());
        if frozen {
            self.drop_oldest_frozen();
        }
        finding
    }

    fn count(&mut self, reason: Reason) -> &mut Count {
        self.counts.entry(reason).or_default()
    }

    /// Idle pools open and retract light findings all day, so those are forgotten first.
    fn remember(&mut self, finding: Finding) {
        if self.retracted.len() >= MAX_RETRACTED {
            let is_light = |old: &Finding| old.verdict.severity == Severity::Info;
            let light = self.retracted.iter().position(is_light);
            self.retracted.remove(light.unwrap_or(0));
        }
        self.retracted.push_back(finding);
    }
}

/// Since when each of the verdict's connections is silent.
fn silences(
    verdict: &Verdict,
    table: &ConnectionTable,
    now: Timestamp,
) -> BTreeMap<ConnectionId, Timestamp> {
    let since = |id| table.get(id).map_or(now, |connection| connection.silent_since());
    verdict.connections.iter().map(|&id| (id, since(id))).collect()
}

/// Takes out the finding that `verdict` continues: one with the same key and code, or else one
/// whose connections are all in the verdict because their stack has become known since.
fn take_former(former: &mut Vec<Finding>, verdict: &Verdict) -> Option<Finding> {
    let covering = |severity: Option<Severity>| {
        former.iter().position(|finding| {
            finding.covers(verdict)
                && severity.is_none_or(|severity| finding.verdict.severity == severity)
        })
    };
    let same = covering(Some(verdict.severity)).or_else(|| covering(None));
    let gone_over = || {
        let members: BTreeSet<_> = verdict.connections.iter().collect();
        former.iter().position(|finding| finding.accused.keys().all(|id| members.contains(id)))
    };
    same.or_else(gone_over).map(|index| former.remove(index))
}

#[cfg(test)]
mod tests;
