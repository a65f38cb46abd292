//! What continuous integration reads: JUnit reports, annotations of the source, and the findings
//! that are known already.

mod annotations;
mod baseline;
mod junit;

use std::path::PathBuf;

pub(super) use annotations::Annotations;
pub use baseline::{Baseline, BaselineError};
pub(super) use junit::Junit;

use crate::engine::detect::Severity;
use crate::engine::findings::Finding;
use crate::engine::snapshot::Snapshot;

/// What is written for continuous integration.
#[derive(Clone, Debug, Default)]
pub struct CiSettings {
    /// A JUnit report.
    pub junit: Option<PathBuf>,
    /// Annotations in GitHub's format on stderr.
    pub annotations: bool,
    /// Findings that fail no run.
    pub baseline: Baseline,
}

/// The open findings worth a word, the heaviest first.
fn grave<'a>(snapshot: &Snapshot<'a>) -> Vec<&'a Finding> {
    let open = snapshot.ledger.open().into_iter();
    open.filter(|finding| finding.verdict.severity > Severity::Info).collect()
}

/// `abandoned: 11 connections in main.report (report.go:41)`.
fn title(snapshot: &Snapshot<'_>, finding: &Finding) -> String {
    let place = match snapshot.culprit(&finding.verdict) {
        Some(culprit) => culprit.function.clone().unwrap_or_else(|| "unknown code".to_owned()),
        None => snapshot.comm(finding.verdict.process).unwrap_or("a process").to_owned(),
    };
    format!("{} in {place}", finding.verdict.reason)
}

/// Evidence, what to do, and the fingerprint for a baseline.
fn message(snapshot: &Snapshot<'_>, finding: &Finding) -> String {
    let step = finding.verdict.next_step(snapshot.culprit(&finding.verdict));
    let step = step.map(|step| format!("\nnext: {step}")).unwrap_or_default();
    let fingerprint = snapshot.fingerprint(finding);
    format!("{}{step}\nfingerprint: {fingerprint}", finding.evidence())
}
