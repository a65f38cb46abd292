//! What findings are about: only those about the same can be the same.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::net::SocketAddr;

use crate::engine::detect::{Reason, Verdict};
use crate::engine::findings::Finding;
use crate::engine::table::Identity;
use crate::model::ProcessKey;

/// What a verdict is about, whoever made the trouble.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Trouble {
    reason: Reason,
    process: ProcessKey,
    remote: SocketAddr,
    pool: Option<Identity>,
}

impl Trouble {
    pub(super) fn of(verdict: &Verdict) -> Self {
        let Verdict { reason, process, remote, pool, .. } = verdict;
        Self { reason: *reason, process: *process, remote: *remote, pool: pool.clone() }
    }
}

/// Findings by what they are about, in their order.
pub(super) fn by_trouble<F: Borrow<Finding>>(
    findings: impl IntoIterator<Item = F>,
) -> HashMap<Trouble, Vec<F>> {
    let mut by_trouble: HashMap<Trouble, Vec<F>> = HashMap::new();
    for finding in findings {
        by_trouble.entry(Trouble::of(&finding.borrow().verdict)).or_default().push(finding);
    }
    by_trouble
}
