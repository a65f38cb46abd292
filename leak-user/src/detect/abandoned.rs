//! A connection that its pool has lost.

use std::collections::{BTreeMap, BTreeSet};

use crate::detect::evidence::plural;
use crate::detect::{Detector, Reason, Severity, Verdict, View};
use crate::event::{StackId, Timestamp};
use crate::table::{Connection, PoolKey};

/// How many different amounts of growth make a staircase.
const STEPS: usize = 3;

/// Finds connections that are idle and silent while their group opened more.
///
/// A healthy pool would have used the idle connection instead. One such case may still be chance:
/// two pools that look like one, a replacement under way, a connection held in thought. So it takes
/// a staircase: connections that were opened after others had fallen silent, fell silent
/// themselves, and were followed by yet others. An idle pool beside a growing one has no such
/// steps, because its connections were all there before the first of them fell silent.
///
/// Where a group has a staircase, the connections that saw growth and were last used by the code
/// that is on its steps are accused. So are those that the same code used last and that saw no
/// growth: a pool at its cap cannot grow any more. Idle connections that other code used last stay
/// out of it.
pub(super) struct Abandoned;

/// A silent, idle connection, and how much its group grew since.
struct Candidate<'a> {
    connection: &'a Connection,
    growth: i64,
}

impl Candidate<'_> {
    fn stack(&self) -> Option<&StackId> {
        self.connection.last_used_by.as_ref()
    }
}

impl Detector for Abandoned {
    fn reason(&self) -> Reason {
        Reason::Abandoned
    }

    fn judge(&self, view: &View<'_>, now: Timestamp) -> Vec<Verdict> {
        let mut pools: BTreeMap<PoolKey, Vec<Candidate<'_>>> = BTreeMap::new();
        for connection in idle_connections(view, now) {
            let candidate = Candidate { connection, growth: view.lasting_growth(connection) };
            pools.entry(view.table().pool_of(connection).key).or_default().push(candidate);
        }
        let accused: Vec<_> = pools.values().flat_map(|pool| accused(view, pool)).collect();
        view.verdicts(self.reason(), accused, |members| {
            let growth = members.iter().map(|member| view.lasting_growth(member)).max();
            let opened = match growth {
                Some(growth) if growth > 0 => format!("the pool opened {growth} more"),
                _ => "the pool opened others".to_owned(),
            };
            let connections = plural(members.len(), "connection");
            let silence = view.silence(members, now);
            (Severity::Leak, format!("{connections} idle and {silence}, while {opened}"))
        })
    }
}

/// The connections of `view` that a healthy pool would use next.
pub(super) fn idle_connections<'a>(
    view: &View<'a>,
    now: Timestamp,
) -> impl Iterator<Item = &'a Connection> {
    view.silent_connections(now)
        .filter(|connection| connection.is_idle() && !connection.wire.listens)
}

/// Those of one pool's silent and idle connections that it has lost.
fn accused<'a>(view: &View<'_>, pool: &[Candidate<'a>]) -> Vec<&'a Connection> {
    let risen: Vec<&Candidate<'_>> = pool.iter().filter(|candidate| candidate.growth > 0).collect();
    let on_steps: BTreeSet<Option<&StackId>> =
        later_ones(view, &risen).map(|candidate| candidate.stack()).collect();
    let mut accused: Vec<&Candidate<'_>> =
        risen.into_iter().filter(|candidate| on_steps.contains(&candidate.stack())).collect();
    if !is_staircase(view, &accused) {
        accused.clear();
    }
    let known: BTreeSet<_> = accused.iter().map(|candidate| candidate.connection.id).collect();
    let standing = |candidate: &&Candidate<'_>| {
        !known.contains(&candidate.connection.id) && view.stands_accused(candidate.connection)
    };
    accused.extend(pool.iter().filter(standing));
    let stacks: BTreeSet<&StackId> =
        accused.iter().filter_map(|candidate| candidate.stack()).collect();
    let (mut known, mut all) = (BTreeSet::new(), Vec::new());
    let joining = pool.iter().filter(|one| one.stack().is_some_and(|id| stacks.contains(id)));
    for candidate in accused.iter().copied().chain(joining) {
        if known.insert(candidate.connection.id) {
            all.push(candidate.connection);
        }
    }
    all
}

/// Those that were opened when the first of them was silent already.
fn later_ones<'a: 'b, 'b>(
    view: &View<'_>,
    candidates: &[&'b Candidate<'a>],
) -> impl Iterator<Item = &'b Candidate<'a>> {
    let first = candidates.iter().map(|candidate| candidate.connection.silent_since()).min();
    let from = first.map(|first| first.after(view.grace()));
    candidates.iter().copied().filter(move |candidate| {
        candidate.connection.opened_at.is_some() && candidate.connection.opened_at > from
    })
}

fn is_staircase(view: &View<'_>, candidates: &[&Candidate<'_>]) -> bool {
    let steps: BTreeSet<i64> = candidates.iter().map(|candidate| candidate.growth).collect();
    let later: BTreeSet<i64> =
        later_ones(view, candidates).map(|candidate| candidate.growth).collect();
    steps.len() >= STEPS && later.len() >= STEPS - 1
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
