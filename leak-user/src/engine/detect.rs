//! Judging the table: one detector a reason.
//!
//! A detector looks at a [`View`] of the table at one moment and says which connections or pools it
//! has something against, and why. It keeps no state: what it needs of the past is in the table,
//! where pools have their histories, and in [`Memory`].
//!
//! Severity [`Severity::Leak`] needs evidence that a healthy pool cannot produce. The strongest is
//! that a healthy pool reuses: it does not open a connection while it has an idle one.
//!
//! To add one, name a [`Reason`], write a file with an implementation of [`Detector`] and an
//! [`Evidence`], and enter it into `DETECTORS` at the place that its precedence gives it. Findings,
//! reports and metrics ask the detector for everything that they have to know.

mod abandoned;
mod awaiting_response;
mod close_wait;
mod code;
mod connect_stuck;
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
mod unread_result;
mod verdict;
mod view;
mod wording;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use code::{CodeKey, Stacks};
pub use evidence::{Evidence, Numbers, Silence, Span};
pub use memory::Memory;
pub use reason::{Reason, Severity, StackOf};
pub use verdict::{Scope, Verdict};
pub use view::{PriorAccusations, View};
pub(crate) use wording::{duration, plural};

use crate::model::Timestamp;

/// From when on things count.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Thresholds {
    /// How long without payload counts as silent.
    pub silent_after: Duration,
    /// How often connections are judged.
    pub interval: Duration,
    /// The pool's or server's cap, for forecasts.
    pub limit: Option<u64>,
}

/// Finds one kind of trouble, and knows everything about it that anybody has to know.
pub trait Detector: Sync {
    /// What it finds. No two detectors find the same.
    fn reason(&self) -> Reason;

    /// How much it weighs as a rule.
    fn severity(&self) -> Severity;

    /// What its verdicts are about.
    fn scope(&self) -> Scope {
        Scope::Connections
    }

    /// Judges the connections of `view` that no detector of higher precedence has taken.
    fn judge(&self, view: &View<'_>, now: Timestamp) -> Vec<Verdict>;

    /// What to do about a verdict of this severity. `place` is where the code is that it names: "in
    /// refund_order (shop.c:120)".
    fn next_step(&self, severity: Severity, place: &str) -> Option<String>;

    /// What is said when a verdict is no longer true.
    fn retraction(&self) -> RetractionWords {
        RetractionWords::default()
    }
}

/// What is said when a verdict is no longer true.
#[derive(Clone, Copy, Debug)]
pub struct RetractionWords {
    /// Of a connection that has carried payload since; "after 93 s" is added.
    pub moved: &'static str,
    /// When nothing better can be said.
    pub over: &'static str,
}

impl Default for RetractionWords {
    fn default() -> Self {
        Self { moved: "used again", over: "no longer so" }
    }
}

/// The detectors, the surest evidence first: a connection is taken by the first that has something
/// against it. Those that judge pools take none.
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

/// Judges all that there is in `view` at `now`.
#[must_use]
pub fn evaluate(mut view: View<'_>, now: Timestamp) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for detector in DETECTORS {
        let found = detector.judge(&view, now);
        if detector.scope() == Scope::Connections {
            view.take(found.iter().flat_map(|verdict| &verdict.connections).copied());
        }
        verdicts.extend(found);
    }
    verdicts
}
