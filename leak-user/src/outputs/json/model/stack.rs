//! Stacks.

use std::collections::{BTreeMap, BTreeSet};

use leak_stacks::{Frame, Language, Quality, Stack, StackId, TruncationReason};
use schemars::JsonSchema;
use serde::Serialize;

use crate::engine::findings::Finding;
use crate::engine::snapshot::Snapshot;
use crate::engine::table::Connection;
use crate::model::Whereabouts;

/// The calls of a thread at one moment.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Stack")]
pub(super) struct StackModel<'a> {
    /// How much of it is known.
    quality: Quality,
    /// Why it is not complete. Null when it is.
    quality_reason: Option<TruncationReason>,
    /// What its innermost application frame is written in, or runs on.
    language: Language,
    /// What to do so that its runtime's calls have names. Null when they have some, or need none.
    advice: Option<&'static str>,
    /// Its calls, innermost first; inlined calls are frames of their own.
    frames: &'a [Frame],
}

/// The stacks that connections and findings refer to.
pub(super) fn referred_to<'a>(
    snapshot: &Snapshot<'a>,
    connections: &[&'a Connection],
    findings: &[&'a Finding],
) -> BTreeMap<&'a StackId, StackModel<'a>> {
    let of_connections = connections.iter().flat_map(|connection| {
        [connection.callers.opened_by.as_ref(), connection.callers.last_used_by.as_ref()]
    });
    let of_uses = connections.iter().flat_map(|connection| {
        connection.callers.uses.iter().flatten().map(|one| one.stack.as_ref())
    });
    let of_users = connections.iter().map(|connection| match &connection.callers.user_seen {
        Some(Whereabouts::At(stack)) => Some(stack),
        _ => None,
    });
    let of_waiters = snapshot.waiting().flat_map(|(_, waiting)| waiting.stacks()).map(Some);
    let of_findings = findings.iter().map(|finding| finding.verdict.stack.as_ref());
    let ids: BTreeSet<&StackId> = of_connections
        .chain(of_uses)
        .chain(of_users)
        .chain(of_waiters)
        .chain(of_findings)
        .flatten()
        .collect();
    ids.into_iter()
        .filter_map(|id| {
            let stack = snapshot.stack(Some(id))?;
            let advice = leak_stacks::advice(stack);
            let Stack { id: _, quality, truncation, language, frames, culprit: _, callers: _ } =
                stack;
            let (quality, quality_reason, language) = (*quality, *truncation, *language);
            Some((id, StackModel { quality, quality_reason, language, advice, frames }))
        })
        .collect()
}
