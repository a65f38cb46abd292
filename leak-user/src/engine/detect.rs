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
mod close_wait;
mod code;
mod connect_stuck;
mod detector;
mod evidence;
mod growing;
mod idle_in_transaction;
mod memory;
mod place;
mod reason;
mod silent;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod thresholds;
mod unread_result;
mod verdict;
mod view;
mod wording;

pub use code::{CodeKey, Stacks};
pub use detector::{Detector, RetractionWords};
pub use evidence::{Evidence, Numbers, Silence, Span};
pub use memory::Memory;
pub use reason::{Reason, Severity, StackOf};
pub use thresholds::Thresholds;
pub use verdict::{Scope, Verdict};
pub use view::{PriorAccusations, View};
pub(crate) use wording::{duration, plural};

use crate::model::Timestamp;
use leak_stacks::Frame;

/// The detectors in order of precedence, the surest evidence first. A connection is taken by the
/// first detector that accuses it; detectors of pools take none.
const DETECTORS: [&dyn Detector; 8] = [
    &growing::Growing,
    &close_wait::CloseWait,
    &idle_in_transaction::IdleInTransaction,
    &unread_result::UnreadResult,
    &abandoned::Abandoned,
    &connect_stuck::ConnectStuck,
    &awaiting_response::AwaitingResponse,
    &silent::Silent,
];

/// The detector that finds `reason`.
pub(super) fn detector_of(reason: Reason) -> &'static dyn Detector {
    let found = DETECTORS.into_iter().find(|detector| detector.reason() == reason);
    // A test holds that every reason has a detector.
    found.unwrap_or(&silent::Silent)
}

/// What a verdict's detector says of it.
impl Verdict {
    /// What it is about.
    #[must_use]
    pub fn scope(&self) -> Scope {
        detector_of(self.reason).scope()
    }

    /// What is said when it is no longer true.
    #[must_use]
    pub fn retraction(&self) -> RetractionWords {
        detector_of(self.reason).retraction()
    }

    /// Advice on where to look and what for. `None` when nothing needs to be done. `culprit` is the
    /// frame of the verdict's stack that belongs to the application.
    #[must_use]
    pub fn next_step(&self, culprit: Option<&Frame>) -> Option<String> {
        detector_of(self.reason).next_step(self.severity, &place::of(self.stack_of, culprit))
    }
}

/// Runs all detectors on `view` at `now`.
#[must_use]
pub fn evaluate(mut view: View<'_>, now: Timestamp) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    view.leave_resting(now);
    for detector in DETECTORS {
        let found = detector.judge(&view, now);
        if detector.scope() == Scope::Connections {
            view.take(found.iter().flat_map(|verdict| &verdict.connections).copied());
        }
        verdicts.extend(found);
    }
    verdicts
}
