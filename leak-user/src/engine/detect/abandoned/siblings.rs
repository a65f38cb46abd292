//! What a pool does to all its connections, and has not done to some.
//!
//! Pools ping idle connections regularly and retire connections at a certain age. A connection that
//! is passed over is not in the pool: it was taken out and not given back, or it belongs to another
//! pool. So this is no proof.

use std::fmt;
use std::time::Duration;

use crate::engine::detect::abandoned::candidate::Candidate;
use crate::engine::detect::memory::Rhythm;
use crate::engine::detect::{Evidence, Numbers, Silence, Span, View, duration, plural};
use crate::engine::table::{Connection, Pool};
use crate::model::Timestamp;

/// Least number of siblings that were pinged or retired.
const LEAST_SIBLINGS: usize = 3;
/// Regular pauses that make a habit.
const LEAST_PAUSES: u32 = 3;
/// How many periods or ages must pass.
const TIMES: u32 = 3;
/// Ages and periods that differ by at most this part of one are alike.
const ALIKE: u32 = 5;

/// What a pool does to the connections that it has.
#[derive(Clone, Copy, Debug)]
pub(super) enum Habit {
    /// It sends a request to each of so many, once a period.
    Pings { others: usize, period: Duration },
    /// It closed so many, at these ages.
    Retires { others: usize, ages: Span },
}

/// The idle connections of a pool that one of its habits has passed over, with the habit. `members`
/// are all its connections.
pub(super) fn outlived<'a>(
    view: &View<'_>,
    pool: &[Candidate<'a>],
    members: &[&Connection],
    now: Timestamp,
) -> Vec<(&'a Connection, Habit)> {
    let Some(first) = pool.first() else { return Vec::new() };
    let habits =
        [pings(view, members, now), retires(view, &view.table().pool_of(first.connection))];
    let missed = |candidate: &Candidate<'a>| {
        let connection = candidate.connection;
        let habit = habits.iter().flatten().find(|habit| habit.has_missed(connection, now))?;
        Some((connection, *habit))
    };
    pool.iter().filter_map(missed).collect()
}

/// Connections that a habit of their pool has passed over.
#[derive(Debug)]
pub(super) struct PassedOver {
    connections: usize,
    silence: Silence,
    habit: Option<Habit>,
}

impl PassedOver {
    pub(super) fn new(
        view: &View<'_>,
        members: &[&Connection],
        habit: Option<Habit>,
        now: Timestamp,
    ) -> Self {
        Self { connections: members.len(), silence: view.silence(members, now), habit }
    }
}

impl Evidence for PassedOver {
    fn numbers(&self) -> Numbers {
        let numbers = Numbers::of(self.connections).silence(self.silence);
        match self.habit {
            Some(Habit::Pings { others, period }) => {
                numbers.count("others_pinged", others).time("ping_period_ms", period)
            }
            Some(Habit::Retires { others, ages }) => numbers.count("others_closed", others).span(
                "closed_age_min_ms",
                "closed_age_max_ms",
                ages,
            ),
            None => numbers,
        }
    }
}

/// "1 connection idle and silent for 300 s (threshold 60 s), while the pool pinged 4 others every
/// 30 s".
impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections = plural(self.connections, "connection");
        write!(f, "{connections} idle and {}, while the pool ", self.silence)?;
        match self.habit {
            Some(Habit::Pings { others, period }) => {
                write!(f, "pinged {others} others every {}", duration(period))
            }
            Some(Habit::Retires { others, ages }) => {
                write!(f, "closed {others} others at the age of {ages}")
            }
            None => f.write_str("looked after others"),
        }
    }
}

impl Habit {
    fn has_missed(&self, connection: &Connection, now: Timestamp) -> bool {
        match self {
            Self::Pings { period, .. } => connection.silent_for(now) >= *period * TIMES,
            Self::Retires { ages, .. } => {
                let oldest = ages.most;
                let age = connection.opened_at.map(|at| now.since(at)).unwrap_or_default();
                // Longer than it takes to look at what was idle when it came of age.
                age >= oldest * TIMES / 2 && connection.silent_for(now) >= age - oldest
            }
        }
    }
}

fn pings(view: &View<'_>, members: &[&Connection], now: Timestamp) -> Option<Habit> {
    // Requests that follow one another at once are no pings.
    let is_pinged = |rhythm: &Rhythm| {
        rhythm.regular_pauses >= LEAST_PAUSES && rhythm.last_pause >= view.grace()
    };
    let rhythms = members.iter().map(|connection| view.rhythm(connection)).filter(is_pinged);
    let periods: Vec<Duration> = rhythms.map(|rhythm| rhythm.last_pause).collect();
    let (least, most) = (*periods.iter().min()?, *periods.iter().max()?);
    let cared_for = members.iter().filter(|one| one.silent_for(now) < most * TIMES).count();
    // Where some are used in another way, the regular ones may be those of regular work.
    let is_habit =
        periods.len() == cared_for && cared_for >= LEAST_SIBLINGS && most - least <= most / ALIKE;
    is_habit.then_some(Habit::Pings { others: cared_for, period: most })
}

fn retires(view: &View<'_>, pool: &Pool<'_>) -> Option<Habit> {
    let others = view.retired(pool).count();
    let ages: Span = view.retired(pool).collect();
    let is_habit = others >= LEAST_SIBLINGS
        && ages.most - ages.least <= ages.most / ALIKE
        && ages.least >= view.thresholds().silent_after;
    is_habit.then_some(Habit::Retires { others, ages })
}
