//! Connections that a pool opened in advance and that nobody has used yet.
//!
//! Filling a pool one connection after the other may take longer than the threshold of silence, and
//! the first ones are then idle while it opens more. Leaked connections that were never used look
//! the same at first, but filling up ends.

use std::collections::HashSet;
use std::time::Duration;

use crate::engine::detect::View;
use crate::engine::detect::abandoned::candidate::Candidate;
use crate::model::{ConnectionId, Timestamp};

/// Filling up has lasted no longer than this many silences when it ends: with pauses for whatever
/// reason,
const LONGEST: u32 = 2;
/// and without any.
const LONGEST_AT_ONCE: u32 = 4;
/// Connections are opened without pauses when those make up no more than this part of the time.
const PAUSES_SHARE: u32 = 4;

/// The `candidates` of one pool that may have been opened in advance.
pub(super) fn opened_in_advance(
    view: &View<'_>,
    candidates: &[&Candidate<'_>],
) -> HashSet<ConnectionId> {
    let fresh: Vec<_> =
        candidates.iter().copied().filter(|candidate| is_fresh(view, candidate)).collect();
    if !are_of_one_filling(view, &fresh) {
        return HashSet::new();
    }
    fresh.into_iter().map(|candidate| candidate.connection.id).collect()
}

/// Whether it seems to have been made ready and not used since: there was one request, the startup
/// message, or one thread opened and used it at once and no application code is known to have taken
/// part.
fn is_fresh(view: &View<'_>, candidate: &Candidate<'_>) -> bool {
    let connection = candidate.connection;
    let Some(opened_at) = connection.opened_at else { return false };
    let at_once = connection.silent_since().since(opened_at) <= view.grace();
    let nobody_else = !connection.requests.moved && !view.blames(connection);
    connection.requests.count <= 1 || (at_once && nobody_else)
}

/// Whether they were opened back to back, or within the time that filling up may take.
fn are_of_one_filling(view: &View<'_>, fresh: &[&Candidate<'_>]) -> bool {
    let mut lives: Vec<(Timestamp, Timestamp)> = fresh
        .iter()
        .filter_map(|one| Some((one.connection.opened_at?, one.connection.silent_since())))
        .collect();
    lives.sort_unstable();
    let (Some(&(first, _)), Some(&(last, _))) = (lives.first(), lives.last()) else {
        return false;
    };
    let never_used = fresh.iter().all(|one| one.connection.requests.count <= 1);
    let took = last.since(first);
    let silent_after = view.thresholds().silent_after;
    if never_used && took < silent_after * LONGEST {
        return true;
    }
    let pauses = lives.windows(2).filter_map(|pair| match pair {
        [(_, ready), (next, _)] => Some(next.since(*ready)),
        _ => None,
    });
    took < silent_after * LONGEST_AT_ONCE && pauses.sum::<Duration>() < took / PAUSES_SHARE
}
