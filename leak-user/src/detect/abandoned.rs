//! A connection that its pool has lost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::detect::evidence::plural;
use crate::detect::{Detector, Reason, Severity, Verdict, View};
use crate::event::{StackId, Timestamp};
use crate::table::{Connection, PoolKey};

/// How many different amounts of growth make a staircase.
const STEPS: usize = 3;
/// What lies further apart was not one burst.
const ONE_BY_ONE: Duration = Duration::from_millis(100);
/// At most this many times the usual silence is waited for.
const MOST_PATIENCE: u32 = 5;

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
        let (mut lost, mut stuck) = (Vec::new(), Vec::new());
        for pool in pools.values() {
            let accused = accused(view, pool, now);
            if accused.is_empty() && fell_silent_one_by_one(view, pool) {
                stuck.extend(pool.iter().map(|candidate| candidate.connection));
            }
            lost.extend(accused);
        }
        let mut verdicts = view.verdicts(self.reason(), lost, |members| {
            let growth = members.iter().map(|member| view.lasting_growth(member)).max();
            let opened = match growth {
                Some(growth) if growth > 0 => format!("the pool opened {growth} more"),
                _ => "the pool opened others".to_owned(),
            };
            let connections = plural(members.len(), "connection");
            let silence = view.silence(members, now);
            (Severity::Leak, format!("{connections} idle and {silence}, while {opened}"))
        });
        verdicts.extend(view.verdicts(self.reason(), stuck, |members| {
            let connections = plural(members.len(), "connection");
            let silence = view.silence(members, now);
            let evidence = format!(
                "all {connections} of the pool idle and {silence}, one after the other by the same \
                 code; the pool may be exhausted"
            );
            (Severity::Suspect, evidence)
        }));
        verdicts
    }
}

/// Whether all of a pool's connections fell silent, one by one and after the same code: a pool at its
/// cap that leaks comes to that, and cannot grow. A pool with nothing to do may, too.
fn fell_silent_one_by_one(view: &View<'_>, pool: &[Candidate<'_>]) -> bool {
    let Some(first) = pool.first() else { return false };
    let open = view.table().pool_of(first.connection).open_now();
    let mut moments: Vec<Timestamp> =
        pool.iter().map(|candidate| candidate.connection.silent_since()).collect();
    moments.sort_unstable();
    let one_by_one = moments
        .windows(2)
        .filter(|pair| matches!(pair, [one, next] if next.since(*one) >= ONE_BY_ONE))
        .count();
    let took = match (moments.first(), moments.last()) {
        (Some(first), Some(last)) => last.since(*first),
        _ => return false,
    };
    pool.len() >= STEPS
        && i64::try_from(pool.len()).is_ok_and(|count| count == open)
        && first.stack().is_some()
        && pool.iter().all(|candidate| candidate.stack() == first.stack())
        && one_by_one == pool.len() - 1
        && took >= view.grace()
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
fn accused<'a>(view: &View<'_>, pool: &[Candidate<'a>], now: Timestamp) -> Vec<&'a Connection> {
    let patience = pool.first().map(|candidate| patience(view, candidate.connection));
    let risen: Vec<&Candidate<'_>> = pool
        .iter()
        .filter(|candidate| candidate.growth > 0)
        .filter(|candidate| Some(candidate.connection.silent_for(now)) >= patience)
        .collect();
    let on_steps: BTreeSet<Option<&StackId>> =
        later_ones(view, &risen).map(|candidate| candidate.stack()).collect();
    let mut accused: Vec<&Candidate<'_>> =
        risen.into_iter().filter(|candidate| on_steps.contains(&candidate.stack())).collect();
    if !is_staircase(view, &accused) {
        accused.clear();
    }
    // Only a staircase that stands draws others in: what was accused before does not.
    let stacks: BTreeSet<&StackId> =
        accused.iter().filter_map(|candidate| candidate.stack()).collect();
    let joins = |candidate: &&Candidate<'_>| {
        candidate.stack().is_some_and(|id| stacks.contains(id))
            || view.stands_accused(candidate.connection)
    };
    let (mut known, mut all) = (BTreeSet::new(), Vec::new());
    for candidate in accused.iter().copied().chain(pool.iter().filter(joins)) {
        if known.insert(candidate.connection.id) {
            all.push(candidate.connection);
        }
    }
    all
}

/// How long a connection of this one's group must be silent: longer than such silences last that end
/// by themselves, as those of connections that belong to a thread do, but not for ever.
fn patience(view: &View<'_>, connection: &Connection) -> Duration {
    let silent_after = view.thresholds().silent_after;
    let seen = view.table().pool_of(connection).longest_pause();
    silent_after.max((seen + seen / 2).min(silent_after * MOST_PATIENCE))
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
