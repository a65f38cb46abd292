//! Judges the table: one detector per reason.
//!
//! A detector looks at a [`View`] of the table at one moment and says what is wrong with which
//! connections or pools, and why. It keeps no state: pools' histories are in the table, and what
//! else detectors need of the past is in their [`Memory`].
//!
//! Severity [`Severity::Leak`] needs evidence that a healthy pool cannot produce. The strongest is
//! that a healthy pool reuses: it does not open a connection while it has an idle one.
//!
//! To add a detector: add a [`Reason`], write one file that implements [`Detector`] and
//! [`Evidence`], and enter it in `DETECTORS` by its precedence. Findings, reports and metrics ask
//! the detector for everything else.

mod abandoned;
mod awaiting_response;
mod blame;
mod blaming;
mod close_wait;
mod code;
mod connect_stuck;
mod contrast;
mod culprit;
mod detector;
mod evidence;
mod growing;
mod held;
mod idle_in_transaction;
mod memory;
mod no_slot_left;
mod place;
mod reason;
mod refused;
mod silent;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod thresholds;
mod unclosed_at_exit;
mod unread_result;
mod verdict;
mod verdicts;
mod view;
mod wording;

pub use code::{CodeKey, Stacks};
pub use culprit::{Culprit, CulpritFrom, CulpritUses};
pub use detector::{Detector, RetractionWords};
pub use evidence::{Evidence, Numbers, Silence, Span};
pub use memory::Memory;
pub use no_slot_left::{Holder, NoSlotLeft};
pub use reason::{Reason, Severity, StackOf};
pub use thresholds::Thresholds;
pub use verdict::{Scope, Verdict};
pub use view::{PriorAccusations, View};
pub(crate) use wording::{duration, plural};

use crate::engine::fate::Fate;
use crate::model::Timestamp;
use leak_stacks::Frame;

/// The detectors in order of precedence, the surest evidence first. A connection is taken by the
/// first detector that accuses it; detectors of pools and servers take none.
const DETECTORS: [&dyn Detector; 10] = [
    &refused::Refused,
    &unclosed_at_exit::UnclosedAtExit,
    &growing::Growing,
    &close_wait::CloseWait,
    &idle_in_transaction::IdleInTransaction,
    &unread_result::UnreadResult,
    &connect_stuck::ConnectStuck,
    &abandoned::Abandoned,
    &awaiting_response::AwaitingResponse,
    &silent::Silent,
];

/// The detector that finds `reason`.
pub(super) fn detector_of(reason: Reason) -> &'static dyn Detector {
    let found = DETECTORS.into_iter().find(|detector| detector.reason() == reason);
    // A test holds that every reason has a detector.
    found.unwrap_or(&silent::Silent)
}

/// What is to be looked for when the code of the last use gives its connections back.
const TAKEN_UNUSED: &str = "look for code that takes a connection and does not use it, or not yet: \
                            it leaves no request, and the code that used the connection before it \
                            gives its connections back";

/// What a verdict's detector says of it.
impl Verdict {
    /// Whether its stack shows code that used the connections last and gives connections back: then
    /// the code that lost them has left no request.
    #[must_use]
    pub fn is_only_last_used(&self) -> bool {
        self.culprit.is_none() && self.culprit_uses.is_some()
    }

    /// What it is about.
    #[must_use]
    pub fn scope(&self) -> Scope {
        detector_of(self.reason).scope()
    }

    /// Whether it is about what is over, so that it can no longer change.
    #[must_use]
    pub fn is_final(&self) -> bool {
        detector_of(self.reason).is_final()
    }

    /// What is said when it is no longer true.
    #[must_use]
    pub fn retraction(&self) -> RetractionWords {
        detector_of(self.reason).retraction()
    }

    /// Advice on where to look and what for. `None` when nothing needs to be done. `culprit` is the
    /// frame that [`Self::culprit`] names.
    #[must_use]
    pub fn next_step(&self, culprit: Option<&Frame>) -> Option<String> {
        if self.fate == Fate::Held && self.severity > Severity::Info {
            return Some(
                "find out why the call that holds it does not go on; give the connection back \
                 before whatever takes long, or bound that by a timeout"
                    .to_owned(),
            );
        }
        if self.is_only_last_used() && self.severity > Severity::Info {
            return Some(TAKEN_UNUSED.to_owned());
        }
        if let Some(step) = self.evidence.next_step() {
            return Some(step.to_owned());
        }
        detector_of(self.reason).next_step(self.severity, &place::of(self.stack_of, culprit))
    }
}

/// Runs all detectors on `view` at `now`.
#[must_use]
pub fn evaluate(mut view: View<'_>, now: Timestamp) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    view.leave_resting(now);
    view.note_pile_ups(now);
    for detector in DETECTORS {
        let found = detector.judge(&view, now);
        if detector.scope() == Scope::Connections {
            view.take(found.iter().flat_map(|verdict| &verdict.connections).copied());
        }
        verdicts.extend(found);
    }
    for verdict in verdicts.iter_mut().filter(|verdict| verdict.scope() == Scope::Connections) {
        let members = verdict.connections.iter().filter_map(|&id| view.table().get(id));
        verdict.fate = view.fates().of_all(members);
        if verdict.fate == Fate::Lost && verdict.severity == Severity::Info {
            // So says every connection at rest in its pool.
            verdict.fate = Fate::Unknown;
        }
        let excused = |&id| view.table().get(id).is_none_or(|one| view.may_be_only_slow(one));
        if verdict.fate == Fate::Held && verdict.connections.iter().all(excused) {
            verdict.severity = verdict.severity.min(Severity::Suspect);
        }
    }
    verdicts
}
