//! A pool that keeps growing.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::detect::abandoned::on_a_staircase;
use crate::engine::detect::blame::Blame;
use crate::engine::detect::{
    Detector, Evidence, Numbers, Reason, RetractionWords, Scope, Severity, Verdict, View, duration,
};
use crate::engine::fate::Fate;
use crate::engine::table::{Connection, Pool, PoolKey};
use crate::model::Timestamp;

/// Shortest window, in intervals.
const WINDOW_INTERVALS: u32 = 6;
/// Most samples compared with one another.
const MAX_SAMPLES: u32 = 60;
/// Least growth that is a trend.
const LEAST_GROWTH: i64 = 5;
/// Least share of rising pairs of samples less falling ones: Kendall's tau.
const LEAST_TAU: f64 = 0.8;

/// Least idle share of the growth, as one in this many. A steady leak is silent for long only in
/// the first half of the window, and its first victims were idle connections that existed before.
const LEAK_SHARE: i64 = 3;

/// Finds pools whose number of open connections rises all the time: in both halves of a window, by
/// rank rather than slope so that a burst does not count, and still at its end so that a pool that
/// has filled up does not.
///
/// A program under rising load grows too, and so does one pool beside another that rests. Growth is
/// a leak when a good part of it is idle: connections that were opened in the window and then fell
/// silent one after the other while the pool opened more. Listeners are silent by nature, and none
/// takes another's place: they count only where not one connection of the pool was ever closed. The
/// verdict names those; a mere suspicion names all connections that make up the growth.
pub(super) struct Growing;

impl Detector for Growing {
    fn reason(&self) -> Reason {
        Reason::Growing
    }

    fn severity(&self) -> Severity {
        Severity::Leak
    }

    fn scope(&self) -> Scope {
        Scope::Pool
    }

    fn judge(&self, view: &View<'_>, now: Timestamp) -> Vec<Verdict> {
        let thresholds = view.thresholds();
        let window = (thresholds.interval * WINDOW_INTERVALS).max(thresholds.silent_after * 2);
        let from = now.before(window);
        if view.table().began().is_none_or(|began| now.since(began) < window) {
            return Vec::new();
        }
        let growing: Vec<Pool<'_>> = view
            .table()
            .pools()
            .filter(|pool| is_rising(&samples(pool, from, window, thresholds.interval)))
            .collect();
        if growing.is_empty() {
            return Vec::new();
        }
        let mut members = view.by_pool();
        let mut idle: HashMap<PoolKey, Vec<&Connection>> = HashMap::new();
        for connection in view.idle_connections(now) {
            // Those that were there before the window say nothing about what grew in it.
            let grew = connection.opened_at.is_some_and(|at| at > from);
            if grew && view.lasting_growth(connection) > 0 {
                idle.entry(view.table().pool_of(connection).key).or_default().push(connection);
            }
        }
        let mut listening: HashMap<PoolKey, Vec<&Connection>> = HashMap::new();
        for connection in view.resting_listeners(now) {
            let pool = view.table().pool_of(connection);
            let grew = connection.opened_at.is_some_and(|at| at > from);
            if grew && view.retired(&pool).next().is_none() {
                listening.entry(pool.key).or_default().push(connection);
            }
        }
        growing
            .into_iter()
            .map(|pool| {
                let idle = idle.remove(&pool.key).unwrap_or_default();
                let listening = listening.remove(&pool.key).unwrap_or_default();
                let members = members.remove(&pool.key).unwrap_or_default();
                verdict(view, &pool, members, &Grown { idle, listening }, window, now)
            })
            // What grew is in the pool, by its own word.
            .filter(|verdict| !verdict.connections.is_empty())
            .collect()
    }

    fn next_step(&self, _severity: Severity, place: &str) -> Option<String> {
        Some(format!(
            "close each connection, or give it back to its pool, {place}, on error paths and early \
             returns too; make one pool, not one for each request"
        ))
    }

    fn retraction(&self) -> RetractionWords {
        RetractionWords { over: "grows no more", ..RetractionWords::default() }
    }
}

/// What grew in the window and is not used.
struct Grown<'a> {
    /// Fell silent while the pool grew.
    idle: Vec<&'a Connection>,
    /// Listens, in a pool of which nothing was ever closed.
    listening: Vec<&'a Connection>,
}

fn verdict<'a>(
    view: &View<'a>,
    pool: &Pool<'_>,
    mut members: Vec<&'a Connection>,
    grown: &Grown<'a>,
    window: Duration,
    now: Timestamp,
) -> Verdict {
    let from = now.before(window);
    let growth = pool.growth_since(from);
    let Grown { idle, listening } = grown;
    let mut lost = on_a_staircase(view, idle, now);
    lost.retain(|one| !view.may_be_only_slow(one));
    lost.extend(listening);
    let is_good_part =
        i64::try_from(lost.len()).is_ok_and(|lost| lost.saturating_mul(LEAK_SHARE) >= growth);
    let severity = if is_good_part && !lost.is_empty() {
        members = lost;
        Severity::Leak
    } else {
        members.retain(|member| member.opened_at.is_some_and(|at| at > from));
        Severity::Suspect
    };
    members.sort_unstable_by_key(|member| member.id);
    let blame = Blame::commonest(view.blame(Reason::Growing, &members).iter());
    let evidence = Growth {
        from: pool.open_at(from),
        to: pool.open_now(),
        window,
        idle: idle.len(),
        listening: listening.len(),
        limit: view
            .thresholds()
            .limit
            .and_then(|limit| Forecast::new(pool.open_now(), growth, limit, window)),
        server_limit: members
            .iter()
            .find_map(|member| servers_forecast(view, member, growth, window)),
    };
    Verdict {
        reason: Reason::Growing,
        severity,
        process: pool.key.process,
        remote: pool.key.remote,
        pool: Some((*pool.key.identity).clone()),
        connections: members.iter().map(|member| member.id).collect(),
        evidence: Arc::new(evidence),
        stack_of: blame.stack_of,
        stack: blame.stack,
        cause: blame.cause,
        culprit: blame.culprit,
        culprit_uses: blame.uses,
        sender: None,
        fate: Fate::Unknown,
    }
}

#[derive(Debug)]
struct Growth {
    /// Open connections when the window began.
    from: i64,
    /// And when it ended.
    to: i64,
    window: Duration,
    /// Connections opened in the window that fell silent while the pool grew.
    idle: usize,
    /// Connections opened in the window that only listen, where nobody closes any.
    listening: usize,
    /// The limit that was set.
    limit: Option<Forecast>,
    /// What the server allows.
    server_limit: Option<Forecast>,
}

impl Evidence for Growth {
    fn numbers(&self) -> Numbers {
        let mut numbers = Numbers::default()
            .count("open_before", self.from)
            .count("open_now", self.to)
            .time("window_ms", self.window)
            .count("fell_silent", self.idle)
            .some("listening", self.listening);
        if let Some(Forecast { limit, time_left }) = self.limit {
            numbers = numbers.count("limit", limit).time("limit_reached_in_ms", time_left);
        }
        if let Some(Forecast { limit, time_left }) = self.server_limit {
            numbers =
                numbers.count("server_limit", limit).time("server_limit_reached_in_ms", time_left);
        }
        numbers
    }
}

/// "open connections rose from 6 to 30 in 120 s, while 12 fell silent and stayed idle; reaches 100
/// in 4 min".
impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, window, idle, listening, limit, server_limit } = self;
        let window = duration(*window);
        write!(
            f,
            "open connections rose from {from} to {to} in {window}, while {idle} fell silent and \
             stayed idle"
        )?;
        if *listening > 0 {
            write!(f, " and {listening} only listen")?;
        }
        if let Some(forecast) = limit {
            write!(f, "; {forecast}")?;
        }
        if let Some(forecast) = server_limit {
            write!(f, "; {forecast}, all that the server allows")?;
        }
        Ok(())
    }
}

/// When a limit will be reached if growth goes on.
#[derive(Clone, Copy, Debug)]
struct Forecast {
    limit: u64,
    /// 0 when it is reached.
    time_left: Duration,
}

impl Forecast {
    /// `None` when it takes longer than anybody will wait.
    fn new(open: i64, growth: i64, limit: u64, window: Duration) -> Option<Self> {
        let left = i64::try_from(limit).unwrap_or(i64::MAX).saturating_sub(open).max(0);
        // Growth is at least LEAST_GROWTH here.
        let seconds = window.as_secs_f64() * left as f64 / growth.max(1) as f64;
        let time_left = Duration::try_from_secs_f64(seconds).ok()?;
        Some(Self { limit, time_left })
    }
}

/// "reaches 100 in 4 min".
impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, time_left } = *self;
        if time_left.is_zero() {
            return write!(f, "the limit of {limit} is reached");
        }
        write!(f, "reaches {limit} in {}", duration(time_left))
    }
}

/// The forecast for what the server of `member` allows, when it is asked. Others use it too.
fn servers_forecast(
    view: &View<'_>,
    member: &Connection,
    growth: i64,
    window: Duration,
) -> Option<Forecast> {
    let server = view.table().server_of(member)?;
    let usable = u64::from(server.settings.as_ref()?.usable());
    let used = i64::try_from(server.used?).ok()?;
    Forecast::new(used, growth, usable, window)
}

/// The pool's open connections at even steps from `from` to the window's end.
fn samples(pool: &Pool<'_>, from: Timestamp, window: Duration, interval: Duration) -> Vec<i64> {
    let step = interval.max(window / MAX_SAMPLES).max(Duration::from_millis(1));
    let count = u32::try_from(window.as_nanos() / step.as_nanos()).unwrap_or(MAX_SAMPLES);
    (0..=count).map(|index| pool.open_at(from.after(step * index))).collect()
}

fn is_rising(samples: &[i64]) -> bool {
    let at = |index: usize| samples.get(index).copied().unwrap_or(0);
    let last = samples.len().saturating_sub(1);
    let grew = |from: usize, to: usize| at(to) > at(from);
    at(last) - at(0) >= LEAST_GROWTH
        && grew(0, last / 2)
        && grew(last / 2, last)
        && grew(last - last / 3, last)
        && tau(samples) >= LEAST_TAU
}

/// Kendall's tau-a: the share of pairs that rise less the share of pairs that fall.
fn tau(samples: &[i64]) -> f64 {
    let (mut pairs, mut score) = (0_i32, 0_i32);
    for (index, earlier) in samples.iter().enumerate() {
        for later in samples.iter().skip(index + 1) {
            pairs += 1;
            score += later.cmp(earlier) as i32;
        }
    }
    f64::from(score) / f64::from(pairs.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::detect::testing::{find, judge};
    use crate::engine::testing::{World, server_lists, session};
    use crate::model::WireState;
    use crate::model::server::SessionState;

    /// Every five seconds a connection is opened, used and lost.
    fn leaking() -> World {
        let mut world = World::new();
        for number in 0..30 {
            let at = 10.0 + 5.0 * number as f64;
            world.open(number, at);
            world.request(number, at + 0.1, "leak", WireState::Idle);
        }
        world
    }

    #[test]
    fn a_leak_is_forecast() {
        let world = leaking();
        let verdicts = judge(&world, 158.0);
        let found = find(&verdicts, Reason::Growing);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].severity, Severity::Leak);
        assert_eq!(
            found[0].evidence.to_string(),
            "open connections rose from 6 to 30 in 120 s, while 12 fell silent and stayed idle; \
             reaches 100 in 350 s"
        );
        let ids: Vec<u64> = found[0].connections.iter().map(|id| id.0).collect();
        assert_eq!(ids, (6..18).collect::<Vec<_>>(), "those that fell silent");
    }

    #[test]
    fn what_the_server_allows_is_forecast_for_all_its_users() {
        let mut world = leaking();
        // The server allows 7, and the oldest of those that make up the growth is number 6.
        world.hear(157.0, server_lists(vec![session(6, 117.0, SessionState::Idle)]));
        let verdicts = judge(&world, 158.0);
        let evidence = &find(&verdicts, Reason::Growing)[0].evidence;
        let end = "; reaches 100 in 350 s; reaches 7 in 30 s, all that the server allows";
        assert!(evidence.to_string().ends_with(end), "{evidence}");
    }

    #[test]
    fn rising_load_is_only_suspect() {
        let mut world = World::new();
        for number in 0..30 {
            world.open(number, 10.0 + 5.0 * number as f64);
            for used in 0..=number {
                let at = 12.0 + 5.0 * number as f64 + 0.01 * used as f64;
                world.request(used, at, "work", WireState::Idle);
            }
        }
        let verdicts = judge(&world, 158.0);
        assert_eq!(find(&verdicts, Reason::Growing)[0].severity, Severity::Suspect);
    }

    #[test]
    fn a_pool_that_rests_beside_one_that_rises_is_only_suspect() {
        let mut world = World::new();
        // The one that rests was used once, slowly.
        for number in 100..112 {
            let at = 40.0 + 2.0 * (number - 100) as f64;
            world.open(number, at);
            world.request(number, at + 0.1, "once", WireState::Idle);
        }
        for number in 0..24 {
            world.open(number, 66.0 + 4.0 * number as f64);
            for used in 0..=number {
                let at = 66.1 + 4.0 * number as f64 + 0.01 * used as f64;
                world.request(used, at, "work", WireState::Idle);
            }
        }
        let verdicts = judge(&world, 160.0);
        assert_eq!(find(&verdicts, Reason::Growing)[0].severity, Severity::Suspect);
    }

    #[test]
    fn trends_are_told_from_bursts_and_plateaus() {
        assert!(is_rising(&[1, 2, 3, 4, 5, 6, 7, 8]));
        assert!(is_rising(&[1, 1, 3, 2, 4, 5, 7, 8, 8, 9, 11, 12]));
        assert!(!is_rising(&[5, 5, 5, 5, 50, 50, 50, 50]), "a burst");
        assert!(!is_rising(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9, 9]), "a plateau");
        assert!(!is_rising(&[9, 1, 9, 1, 9, 1, 9, 20]), "a saw");
        assert!(!is_rising(&[1, 1, 2, 2, 3, 3, 4]), "too little");
        assert!(!is_rising(&[]));
    }

    #[test]
    fn the_window_must_have_been_watched() {
        let mut world = World::new();
        for number in 0..20 {
            world.open(number, 1.0 + 5.0 * number as f64);
        }
        assert!(find(&judge(&world, 100.0), Reason::Growing).is_empty());
    }

    #[test]
    fn listeners_that_nobody_closes_count_too() {
        let listening = |closed: Option<u64>| {
            let mut world = leaking();
            for number in 0..30 {
                world.set(number, |usage| usage.wire.listens = true);
            }
            if let Some(number) = closed {
                world.close(number, 150.0);
            }
            let verdicts = judge(&world, 158.0);
            find(&verdicts, Reason::Growing)[0].severity
        };
        assert_eq!(listening(None), Severity::Leak);
        assert_eq!(listening(Some(10)), Severity::Suspect, "some leave");
    }
}
