//! Judging made-up histories.

use std::time::Duration;

use crate::engine::detect::{Reason, Stacks, Standing, Thresholds, Verdict, evaluate};
use crate::engine::table::testing::{World, secs};

pub(super) const THRESHOLDS: Thresholds = Thresholds {
    silent_after: Duration::from_secs(60),
    interval: Duration::from_secs(10),
    limit: Some(100),
};

/// Judges `world` at second `at` with the default thresholds and no former findings.
pub(super) fn judge(world: &World, at: f64) -> Vec<Verdict> {
    evaluate(&world.table, &Stacks::new(), &THRESHOLDS, &Standing::new(), secs(at))
}

/// The verdicts with `reason`.
pub(super) fn find(verdicts: &[Verdict], reason: Reason) -> Vec<&Verdict> {
    verdicts.iter().filter(|verdict| verdict.reason == reason).collect()
}
