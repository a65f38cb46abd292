//! Which verdicts can be the same finding.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::net::SocketAddr;

use crate::engine::detect::{Reason, Verdict};
use crate::engine::findings::finding::Finding;
use crate::engine::table::Identity;
use crate::model::ProcessKey;

/// What a verdict is about, whatever code is to blame.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct FindingKey {
    reason: Reason,
    process: ProcessKey,
    remote: SocketAddr,
    pool: Option<Identity>,
}

impl FindingKey {
    pub(super) fn of(verdict: &Verdict) -> Self {
        let Verdict { reason, process, remote, pool, .. } = verdict;
        Self { reason: *reason, process: *process, remote: *remote, pool: pool.clone() }
    }
}

/// Findings by what they are about, in their order.
pub(super) fn by_key<F: Borrow<Finding>>(
    findings: impl IntoIterator<Item = F>,
) -> HashMap<FindingKey, Vec<F>> {
    let mut by_key: HashMap<FindingKey, Vec<F>> = HashMap::new();
    for finding in findings {
        by_key.entry(FindingKey::of(&finding.borrow().verdict)).or_default().push(finding);
    }
    by_key
}
