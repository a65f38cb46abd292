//! What a pool does to all that it has, and has not done to some connections.
//!
//! Pools keep idle connections alive with regular requests, and retire them at a certain age. What
//! misses that is not in the pool: it was taken out and not given back, or it belongs to another pool.
//! So this is no proof.

use std::time::Duration;

use crate::engine::detect::View;
use crate::engine::detect::abandoned::Candidate;
use crate::engine::detect::evidence::{duration, plural, span};
use crate::engine::table::{Connection, Pool};
use crate::model::Timestamp;

/// Least number of siblings that something was done to.
const LEAST_SIBLINGS: usize = 3;
/// Regular pauses that make a habit.
const LEAST_PAUSES: u32 = 3;
/// So many times the usual must pass.
const TIMES: u32 = 3;
/// Ages that differ by no more than this part of one are alike.
const ALIKE: u32 = 5;

/// What a pool does to those that it has.
#[derive(Clone, Debug)]
pub(super) enum Habit {
    /// It sends requests to so many, at this distance.
    Pings(usize, Duration),
    /// It closed others at these ages.
    Retires(Vec<Duration>),
}

/// Those of the idle connections of a `pool` that a habit of it has passed over, and the habit.
/// `group` is all that the pool has.
pub(super) fn outlived<'a>(
    view: &View<'_>,
    pool: &[Candidate<'a>],
    group: &[&Connection],
    now: Timestamp,
) -> Vec<(&'a Connection, Habit)> {
    let Some(first) = pool.first() else { return Vec::new() };
    let habits = [pings(view, group, now), retires(view, &view.table().pool_of(first.connection))];
    let missed = |candidate: &Candidate<'a>| {
        let connection = candidate.connection;
        let habit = habits.iter().flatten().find(|habit| habit.has_missed(connection, now))?;
        Some((connection, habit.clone()))
    };
    pool.iter().filter_map(missed).collect()
}

/// "1 connection idle and silent for 300 s (threshold 60 s), while the pool pinged 4 others every 30 s".
pub(super) fn evidence(
    view: &View<'_>,
    members: &[&Connection],
    habit: Option<&Habit>,
    now: Timestamp,
) -> String {
    let habit = match habit {
        Some(Habit::Pings(count, period)) => {
            format!("the pool pinged {count} others every {}", duration(*period))
        }
        Some(Habit::Retires(ages)) => {
            let (count, ages) = (ages.len(), span(ages.iter().copied()));
            format!("the pool closed {count} others at the age of {ages}")
        }
        None => "the pool looked after others".to_owned(),
    };
    let connections = plural(members.len(), "connection");
    format!("{connections} idle and {}, while {habit}", view.silence(members, now))
}

impl Habit {
    fn has_missed(&self, connection: &Connection, now: Timestamp) -> bool {
        match self {
            Self::Pings(_, period) => connection.silent_for(now) >= *period * TIMES,
            Self::Retires(ages) => {
                let oldest = ages.iter().max().copied().unwrap_or_default();
                let age = connection.opened_at.map(|at| now.since(at)).unwrap_or_default();
                // Longer than it takes to look at what was idle when it came of age.
                age >= oldest * TIMES / 2 && connection.silent_for(now) >= age - oldest
            }
        }
    }
}

fn pings(view: &View<'_>, group: &[&Connection], now: Timestamp) -> Option<Habit> {
    // Requests that follow one another at once are no pings.
    let is_pinged = |connection: &&&Connection| {
        connection.regular_pauses >= LEAST_PAUSES && connection.last_pause >= view.grace()
    };
    let periods: Vec<Duration> =
        group.iter().filter(is_pinged).map(|connection| connection.last_pause).collect();
    let (least, most) = (*periods.iter().min()?, *periods.iter().max()?);
    let cared_for = group.iter().filter(|one| one.silent_for(now) < most * TIMES).count();
    // Where some are used in another way, the regular ones may be those of regular work.
    let is_habit =
        periods.len() == cared_for && cared_for >= LEAST_SIBLINGS && most - least <= most / ALIKE;
    is_habit.then_some(Habit::Pings(cared_for, most))
}

fn retires(view: &View<'_>, pool: &Pool<'_>) -> Option<Habit> {
    let ages: Vec<Duration> = pool.retired().collect();
    let (least, most) = (*ages.iter().min()?, *ages.iter().max()?);
    let is_habit = ages.len() >= LEAST_SIBLINGS
        && most - least <= most / ALIKE
        && least >= view.thresholds().silent_after;
    is_habit.then_some(Habit::Retires(ages))
}
