//! A group that only ever grows.

use std::collections::HashMap;
use std::time::Duration;

use crate::detect::abandoned::idle_connections;
use crate::detect::evidence::duration;
use crate::detect::view::shown_stack;
use crate::detect::{Detector, Reason, Severity, StackOf, Verdict, View};
use crate::event::{StackId, Timestamp};
use crate::table::{Connection, Pool, PoolKey};

/// Shortest window, in intervals.
const WINDOW_INTERVALS: u32 = 6;
/// Most samples that are compared with one another.
const MAX_SAMPLES: u32 = 60;
/// Least growth that is a trend.
const LEAST_GROWTH: i64 = 5;
/// Least share of pairs of samples that must rise rather than fall: Kendall's tau.
const LEAST_TAU: f64 = 0.8;

/// What leaks steadily is silent for long only in the window's first half, and the first leaks eat what
/// was idle: one in this many of the growth must lie idle.
const LEAK_SHARE: i64 = 3;

/// Finds groups whose number of open connections rises all the time: in both halves of a window, by
/// rank and not by slope, so that one burst is none, and still at its end, so that a pool that has
/// filled up is none.
///
/// A program under rising load grows too. It is a leak when a good part of the growth is connections
/// that fell silent in the window and lie idle while the group opens more.
pub(super) struct Growing;

impl Detector for Growing {
    fn reason(&self) -> Reason {
        Reason::Growing
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
        let mut members = members(view);
        let mut idle: HashMap<PoolKey, usize> = HashMap::new();
        for connection in idle_connections(view, now) {
            // Those that were silent before the window say nothing about what grew in it.
            let fell_silent = connection.silent_since() >= from;
            if fell_silent && view.lasting_growth(connection) > 0 {
                *idle.entry(view.table().pool_of(connection).key).or_default() += 1;
            }
        }
        growing
            .into_iter()
            .map(|pool| {
                let idle = idle.get(&pool.key).copied().unwrap_or(0);
                let members = members.remove(&pool.key).unwrap_or_default();
                verdict(view, &pool, members, idle, window, now)
            })
            .collect()
    }
}

fn members<'a>(view: &View<'a>) -> HashMap<PoolKey, Vec<&'a Connection>> {
    let mut members: HashMap<PoolKey, Vec<&Connection>> = HashMap::new();
    for connection in view.connections() {
        members.entry(view.table().pool_of(connection).key).or_default().push(connection);
    }
    members
}

fn verdict(
    view: &View<'_>,
    pool: &Pool<'_>,
    mut members: Vec<&Connection>,
    idle: usize,
    window: Duration,
    now: Timestamp,
) -> Verdict {
    let from = now.before(window);
    let growth = pool.growth_since(from);
    let severity = match i64::try_from(idle) {
        Ok(idle) if idle * LEAK_SHARE >= growth => Severity::Leak,
        _ => Severity::Suspect,
    };
    // Those that make up the growth.
    members.retain(|member| member.opened_at.is_some_and(|at| at > from));
    members.sort_unstable_by_key(|member| member.id);
    let (stack_of, stack) = commonest_stack(&members);
    let limit = view.thresholds().limit;
    let evidence = format!(
        "open connections rose from {} to {} in {}, while {} fell silent and stayed idle{}{}",
        pool.open_at(from),
        pool.open_now(),
        duration(window),
        idle,
        limit.map(|limit| forecast(pool.open_now(), growth, limit, window)).unwrap_or_default(),
        members
            .first()
            .and_then(|member| servers_forecast(view, member, growth, window))
            .unwrap_or_default(),
    );
    Verdict {
        reason: Reason::Growing,
        severity,
        process: pool.key.process,
        remote: pool.key.remote,
        pool: Some((*pool.key.identity).clone()),
        connections: members.iter().map(|member| member.id).collect(),
        evidence,
        stack_of,
        stack,
    }
}

/// The stack that most of `members` show.
fn commonest_stack(members: &[&Connection]) -> (StackOf, Option<StackId>) {
    let mut counts: HashMap<(StackOf, Option<StackId>), usize> = HashMap::new();
    for member in members {
        *counts.entry(shown_stack(member)).or_default() += 1;
    }
    let known = counts.into_iter().filter(|((_, stack), _)| stack.is_some());
    let commonest = known.max_by(|(a, count_a), (b, count_b)| (count_a, a).cmp(&(count_b, b)));
    commonest.map_or((StackOf::LastUsedBy, None), |(stack, _)| stack)
}

/// The same for what the server of `member` allows, when it is asked: others use it, too.
fn servers_forecast(
    view: &View<'_>,
    member: &Connection,
    growth: i64,
    window: Duration,
) -> Option<String> {
    let server = view.table().server_of(member)?;
    let usable = u64::from(server.settings.as_ref()?.usable());
    let used = i64::try_from(server.used?).ok()?;
    Some(format!("{} that the server allows", forecast(used, growth, usable, window)))
}

/// "; reaches 100 in 4 m".
fn forecast(open: i64, growth: i64, limit: u64, window: Duration) -> String {
    let left = i64::try_from(limit).unwrap_or(i64::MAX).saturating_sub(open);
    if left <= 0 {
        return format!("; the limit of {limit} is reached");
    }
    // Growth is at least LEAST_GROWTH here.
    let seconds = window.as_secs_f64() * left as f64 / growth.max(1) as f64;
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) => format!("; reaches {limit} in {}", duration(time)),
        Err(_) => String::new(),
    }
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
    use crate::detect::testing::{find, judge};
    use crate::event::WireState;
    use crate::table::testing::World;

    #[test]
    fn a_leak_is_forecast() {
        let mut world = World::new();
        for number in 0..30 {
            world.open(number, 10.0 + 5.0 * number as f64);
        }
        let verdicts = judge(&world, 158.0);
        let found = find(&verdicts, Reason::Growing);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].severity, Severity::Leak);
        assert_eq!(
            found[0].evidence,
            "open connections rose from 6 to 30 in 120 s, while 12 fell silent and stayed idle; \
             reaches 100 in 350 s"
        );
        assert_eq!(found[0].connections.len(), 24);
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
}
