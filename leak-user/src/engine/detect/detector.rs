//! What a detector has to do.

use crate::engine::detect::{Reason, Scope, Severity, Verdict, View};
use crate::model::Timestamp;

/// Finds one kind of problem and describes it to the rest of the program.
pub trait Detector: Sync {
    /// The problem that it finds. Each reason has one detector.
    fn reason(&self) -> Reason;

    /// The usual severity of its verdicts.
    fn severity(&self) -> Severity;

    /// What it judges.
    fn scope(&self) -> Scope {
        Scope::Connections
    }

    /// Whether its verdicts are about what is over: each is given once, and never retracted.
    fn is_final(&self) -> bool {
        false
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
