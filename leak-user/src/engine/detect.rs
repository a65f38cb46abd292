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

/// Finds one kind of problem and describes it to the rest of the program.
pub trait Detector: Sync {
    /// The problem that it finds. Each reason has one detector.
    fn reason(&self) -> Reason;

    /// The usual severity of its verdicts.
    fn severity(&self) -> Severity;

    /// Whether it judges connections or pools.
    fn scope(&self) -> Scope {
        Scope::Connections
    }

    /// Judges `view`, without the connections that detectors of higher precedence have taken.
    fn judge(&self, view: &View<'_>, now: Timestamp) -> Vec<Verdict>;

    /// Advice for a verdict of this severity. `place` names the code to look at: "in refund_order
    /// (shop.c:120)".
    fn next_step(&self, severity: Severity, place: &str) -> Option<String>;

    /// What is said when a verdict is no longer true.
    fn retraction(&self) -> RetractionWords {
        RetractionWords::default()
    }
}

/// What is said when a verdict is no longer true.
#[derive(Clone, Copy, Debug)]
pub struct RetractionWords {
    /// For a connection that has carried payload since; "after 93 s" is appended.
    pub moved: &'static str,
    /// When no better explanation is known.
    pub over: &'static str,
}

impl Default for RetractionWords {
    fn default() -> Self {
        Self { moved: "used again", over: "no longer so" }
    }
}

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

/// Runs all detectors on `view` at `now`.
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
