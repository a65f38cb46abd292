//! A connection that its pool has lost.

mod awaited;
mod candidate;
mod checked_out;
mod exhausted;
mod server_exhausted;
mod siblings;
mod warm_up;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

use crate::engine::detect::code::CodePath;
use crate::engine::detect::view::is_answered_in_part;
use crate::engine::detect::wording::Among;
use crate::engine::detect::{
    Detector, Evidence, Numbers, Reason, Severity, Silence, Verdict, View, plural,
};
use crate::engine::table::{Connection, PoolKey};
use crate::model::{ConnectionId, Timestamp, WireState};

use candidate::{Candidate, STEPS, is_whole_pool};
use checked_out::CheckedOut;
use exhausted::{Emptied, Resting};
use server_exhausted::ServerExhausted;
use siblings::{Habit, PassedOver};

/// A silence counts when it is this many times as long as the pauses that ended by themselves.
const TIMES_A_PAUSE: u32 = 2;
/// Longest silence to wait for, in multiples of the threshold.
const MOST_PATIENCE: u32 = 10;

/// Finds connections that are idle and silent while their pool opened more.
///
/// A healthy pool would have used the idle connection instead. One such case may be chance: two
/// pools that look like one, a replacement under way, a connection held between requests. So proof
/// takes a staircase: connections that were opened after others had fallen silent, fell silent
/// themselves, and were followed by more. An idle pool beside a growing one has no such steps,
/// because all its connections were there before the first fell silent. Two pools that grow in
/// turns have none either, because each uses all that it has before it grows. What a single burst
/// opens is no staircase, however slow the burst, nor is what a pool opens in advance: see
/// [`warm_up`].
///
/// Threads and tasks with connections of their own make a staircase while they start. Their
/// connections are used again after the same code although the pool has grown, so silences after
/// such code must outlast the pauses seen before.
///
/// Where a pool has a staircase, the accused are the connections that saw growth and were last used
/// by the code on its steps. Connections that saw no growth, because the pool has reached its cap,
/// are accused with them only when nothing of the pool is left: all of it silent, and all after
/// that code. Otherwise they may be free.
///
/// A pool at its cap cannot grow; [`exhausted`] has the proof that nothing of it is left. Unusual
/// cases without proof are suspicions: see [`exhausted`] and [`siblings`]. Leaks from before the
/// trace show where the server has no connection left: see [`server_exhausted`], and where somebody
/// waits for a connection: see [`awaited`]. Where the program's own pool could be read, what is in
/// it is left out, and what was taken from it is at least a suspicion: see [`checked_out`].
pub(super) struct Abandoned;

impl Detector for Abandoned {
    fn reason(&self) -> Reason {
        Reason::Abandoned
    }

    fn severity(&self) -> Severity {
        Severity::Leak
    }

    fn judge(&self, view: &View<'_>, now: Timestamp) -> Vec<Verdict> {
        let hoards = server_exhausted::find(view, now);
        let awaited = awaited::find(view, now);
        let mut pools: BTreeMap<PoolKey, Vec<Candidate<'_>>> = BTreeMap::new();
        for connection in view.idle_connections(now) {
            let key = view.table().pool_of(connection).key;
            if !hoards.contains_key(&key) && !awaited.contains_key(&connection.process) {
                pools.entry(key).or_default().push(Candidate::new(view, connection));
            }
        }
        let (mut lost, mut missed) = (Vec::new(), Vec::new());
        let (mut emptied, mut resting, mut taken) = (Vec::new(), Vec::new(), Vec::new());
        let members = if pools.is_empty() { HashMap::new() } else { view.by_pool() };
        for (key, pool) in &pools {
            if exhausted::is_proven(view, pool) {
                emptied.extend(pool.iter().map(|candidate| candidate.connection));
                continue;
            }
            let accused = accused(view, pool, now);
            if !accused.is_empty() {
                lost.extend(accused);
            } else if exhausted::fell_silent_one_by_one(view, pool) {
                resting.extend(pool.iter().map(|candidate| candidate.connection));
            } else {
                let members = members.get(key).map(Vec::as_slice).unwrap_or_default();
                let outlived = siblings::outlived(view, pool, members, now);
                let are_known: Vec<_> = outlived.iter().map(|(known, _)| known.id).collect();
                let rest = pool.iter().map(|candidate| candidate.connection);
                let rest = rest.filter(|connection| !are_known.contains(&connection.id));
                taken.extend(rest.filter(|connection| view.is_checked_out(connection, now)));
                missed.extend(outlived);
            }
        }
        let mut verdicts =
            view.verdicts(self.reason(), hoards.into_values().flatten(), |members| {
                (self.severity(), ServerExhausted::new(view, members, now))
            });
        for besieged in awaited.into_values().flatten() {
            verdicts.extend(view.verdicts(self.reason(), besieged.connections, |members| {
                (besieged.severity, besieged.evidence.of(view, members, now))
            }));
        }
        verdicts.extend(view.verdicts(self.reason(), lost, |members| {
            (self.severity(), Lost::new(view, members, now))
        }));
        verdicts.extend(view.verdicts(self.reason(), emptied, |members| {
            (self.severity(), Emptied::new(view, members, now))
        }));
        verdicts.extend(view.verdicts(self.reason(), resting, |members| {
            (Severity::Suspect, Resting::new(view, members, now))
        }));
        verdicts.extend(view.verdicts(self.reason(), taken, |members| {
            (Severity::Suspect, CheckedOut::new(view, members, now))
        }));
        let habits: HashMap<ConnectionId, Habit> =
            missed.iter().map(|&(connection, habit)| (connection.id, habit)).collect();
        let missed = missed.into_iter().map(|(connection, _)| connection);
        verdicts.extend(view.verdicts(self.reason(), missed, |members| {
            let habit = members.first().and_then(|member| habits.get(&member.id)).copied();
            (Severity::Suspect, PassedOver::new(view, members, habit, now))
        }));
        verdicts
    }

    fn next_step(&self, severity: Severity, place: &str) -> Option<String> {
        Some(if severity >= self.severity() {
            format!(
                "close rows and statements and give the connection back {place}, on error paths \
                 and early returns too: with defer, with, try-with-resources or finally"
            )
        } else {
            format!(
                "see whether requests wait for a connection now: if so, check that connections \
                 are given back {place}; if not, the pool is only idle"
            )
        })
    }
}

#[derive(Debug)]
struct Lost {
    connections: usize,
    /// Connections in the middle of COPY.
    copying: usize,
    /// Connections in the middle of an answer.
    cut: usize,
    silence: Silence,
    /// Growth of the pool since the first of them fell silent; 0 or less when it has shrunk again.
    opened: i64,
}

impl Lost {
    fn new(view: &View<'_>, members: &[&Connection], now: Timestamp) -> Self {
        let count =
            |is: fn(&Connection) -> bool| members.iter().filter(|member| is(member)).count();
        let growth = members.iter().map(|member| view.lasting_growth(member));
        Self {
            connections: members.len(),
            copying: count(|member| member.wire.state == WireState::Copy),
            cut: count(is_answered_in_part),
            silence: view.silence(members, now),
            opened: growth.max().unwrap_or_default(),
        }
    }
}

impl Evidence for Lost {
    fn numbers(&self) -> Numbers {
        Numbers::of(self.connections)
            .count("copying", self.copying)
            .count("cut_answers", self.cut)
            .count("opened_since", self.opened)
            .silence(self.silence)
    }
}

/// "3 connections idle and silent for 60-110 s (threshold 60 s), while the pool opened 11 more".
impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections = plural(self.connections, "connection");
        let copying = Among(self.copying, "with COPY left open");
        let cut = Among(self.cut, "in the middle of an answer");
        write!(f, "{connections} idle{copying}{cut} and {}, while the pool opened ", self.silence)?;
        match self.opened {
            ..=0 => f.write_str("others"),
            opened => write!(f, "{opened} more"),
        }
    }
}

/// The connections that a pool has lost, of its silent and idle ones.
fn accused<'a>(view: &View<'_>, pool: &[Candidate<'a>], now: Timestamp) -> Vec<&'a Connection> {
    let mut accused = staircase(view, pool, now);
    if accused.is_empty() {
        return still_accused(view, pool);
    }
    // Code that never gives back is to blame before code that does.
    let given_back = given_back(view, accused.first().copied());
    let never_given_back = |candidate: &&Candidate<'_>| {
        candidate.path.as_ref().is_some_and(|path| !given_back.contains(path))
    };
    let worse: Vec<_> = accused.iter().copied().filter(never_given_back).collect();
    if is_staircase(view, &worse) {
        accused = worse;
    }
    // Only a staircase that stands draws others in: what was accused before does not.
    let paths: BTreeSet<&CodePath> =
        accused.iter().filter_map(|candidate| candidate.path.as_ref()).collect();
    let joins = |candidate: &&Candidate<'_>| {
        candidate.path.as_ref().is_some_and(|path| paths.contains(path))
            || view.stands_accused(Reason::Abandoned, candidate.connection)
    };
    let nothing_left = is_whole_pool(view, pool) && pool.iter().all(|candidate| joins(&candidate));
    let drawn_in = pool.iter().filter(|candidate| {
        view.stands_accused(Reason::Abandoned, candidate.connection)
            || (nothing_left && joins(candidate))
    });
    let (mut known, mut all) = (BTreeSet::new(), Vec::new());
    for candidate in accused.iter().copied().chain(drawn_in) {
        if known.insert(candidate.connection.id) {
            all.push(candidate.connection);
        }
    }
    all
}

/// The staircase of a pool: connections that saw growth, were last used by the code on its steps,
/// and have been silent for longer than pauses after that code last. Empty when they do not make
/// one. Where no code is known, only those opened after the first had fallen silent.
fn staircase<'a, 'b>(
    view: &View<'_>,
    pool: &'b [Candidate<'a>],
    now: Timestamp,
) -> Vec<&'b Candidate<'a>> {
    let mut patience: BTreeMap<&Option<CodePath>, Duration> = BTreeMap::new();
    let mut risen: Vec<&Candidate<'_>> = pool
        .iter()
        .filter(|candidate| candidate.growth > 0)
        .filter(|candidate| {
            let patience =
                patience.entry(&candidate.path).or_insert_with(|| self::patience(view, candidate));
            candidate.connection.silent_for(now) >= *patience
        })
        .collect();
    let in_advance = warm_up::opened_in_advance(view, &risen);
    risen.retain(|candidate| !in_advance.contains(&candidate.connection.id));
    let on_steps = paths_on_steps(view, &risen);
    risen.retain(|candidate| on_steps.contains(&candidate.path));
    if !is_staircase(view, &risen) {
        return Vec::new();
    }
    // Without names, what was silent before any of them was opened may be another pool's.
    let later: BTreeSet<ConnectionId> =
        later_ones(view, &risen).map(|candidate| candidate.connection.id).collect();
    risen.retain(|one| one.path.is_some() || later.contains(&one.connection.id));
    risen
}

/// The code that used connections after the first of the `risen` had fallen silent, more than once:
/// connections that fell silent at the same moment were one burst.
fn paths_on_steps(view: &View<'_>, risen: &[&Candidate<'_>]) -> BTreeSet<Option<CodePath>> {
    let mut steps: BTreeMap<&Option<CodePath>, BTreeSet<i64>> = BTreeMap::new();
    for candidate in risen {
        steps.entry(&candidate.path).or_default().insert(candidate.growth);
    }
    later_ones(view, risen)
        .map(|candidate| &candidate.path)
        .filter(|path| steps.get(path).is_some_and(|steps| steps.len() > 1))
        .cloned()
        .collect()
}

/// Connections that were accused before.
fn still_accused<'a>(view: &View<'_>, pool: &[Candidate<'a>]) -> Vec<&'a Connection> {
    let connections = pool.iter().map(|candidate| candidate.connection);
    connections.filter(|connection| view.stands_accused(Reason::Abandoned, connection)).collect()
}

/// Code after whose uses connections of this pool were given back.
fn given_back(view: &View<'_>, candidate: Option<&Candidate<'_>>) -> BTreeSet<CodePath> {
    let uses = candidate.map(|candidate| view.given_back(candidate.connection)).unwrap_or_default();
    uses.into_iter().map(|(_, path)| path).collect()
}

/// How long this connection must have been silent: longer than pauses after the same code that
/// ended by themselves although the pool grew, within a limit.
fn patience(view: &View<'_>, candidate: &Candidate<'_>) -> Duration {
    let silent_after = view.thresholds().silent_after;
    let seen = view.longest_pause(candidate.connection, candidate.path.as_ref());
    silent_after.max((seen * TIMES_A_PAUSE).min(silent_after * MOST_PATIENCE))
}

/// Connections opened when the first of them was already silent.
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

/// The connections that make a staircase, of some idle ones of one pool; none when they do not.
pub(super) fn on_a_staircase<'a>(
    view: &View<'_>,
    connections: &[&'a Connection],
    now: Timestamp,
) -> Vec<&'a Connection> {
    let candidates: Vec<Candidate<'_>> =
        connections.iter().map(|connection| Candidate::new(view, connection)).collect();
    staircase(view, &candidates, now).into_iter().map(|candidate| candidate.connection).collect()
}

fn is_staircase(view: &View<'_>, candidates: &[&Candidate<'_>]) -> bool {
    let steps: BTreeSet<i64> = candidates.iter().map(|candidate| candidate.growth).collect();
    let later: BTreeSet<i64> =
        later_ones(view, candidates).map(|candidate| candidate.growth).collect();
    steps.len() >= STEPS
        && later.len() >= STEPS - 1
        && exhausted::took(candidates.iter().copied()) >= view.burst()
}

#[cfg(test)]
mod tests;
