//! One finding.

use std::collections::BTreeMap;
use std::fmt;

use crate::engine::detect::{Numbers, Scope, Verdict};
use crate::model::{ConnectionId, Timestamp};

/// A finding's id, "f1" and up. Ids are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FindingId(pub(super) u64);

impl fmt::Display for FindingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "f{}", self.0)
    }
}

/// A verdict that lasts.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Its id.
    pub id: FindingId,
    /// The latest verdict; of a retracted finding, the last one.
    pub verdict: Verdict,
    /// When it arose.
    pub since: Timestamp,
    /// When it stopped being true.
    pub retracted_at: Option<Timestamp>,
    /// Its process has exited, so it can no longer change.
    pub(super) frozen: bool,
    /// It was retracted because its connections were closed, as a process does that ends.
    pub(super) closed: bool,
    /// Its process ended soon after that.
    pub(super) torn_down: bool,
    /// Its connections, and since when each was silent.
    pub(super) accused: BTreeMap<ConnectionId, Timestamp>,
}

impl Finding {
    /// Why it stands, in one sentence.
    #[must_use]
    pub fn evidence(&self) -> String {
        let has_exited = self.frozen && !self.verdict.is_final();
        let exited = if has_exited { "; the process then exited" } else { "" };
        format!("{}{exited}", self.verdict.evidence)
    }

    /// The numbers of [`Self::evidence`].
    #[must_use]
    pub fn evidence_numbers(&self) -> Numbers {
        self.verdict.evidence.numbers()
    }

    /// Whether `verdict`, with the same key, is about the same code.
    pub(super) fn covers(&self, verdict: &Verdict) -> bool {
        // The code that a pool's newest connections show may change while it is accused.
        verdict.scope() != Scope::Connections || self.verdict.cause == verdict.cause
    }

    /// Whether it knows who held more of a server's slots when that last refused a connection than
    /// `verdict`, which is newer, does.
    pub(super) fn tells_more_than(&self, verdict: &Verdict) -> bool {
        let refused = |of: &Verdict| of.evidence.no_slot_left().map(|full| full.refused);
        verdict.scope() == Scope::Server
            && refused(&self.verdict) == refused(verdict)
            && self.verdict.connections.len() > verdict.connections.len()
    }

    /// Whether `verdict`, with the same key, about a process that is gone, says no more than what
    /// is known already.
    pub(super) fn has_said(&self, verdict: &Verdict) -> bool {
        let covered = || verdict.connections.iter().all(|id| self.accused.contains_key(id));
        verdict.scope() != Scope::Connections || covered()
    }
}
