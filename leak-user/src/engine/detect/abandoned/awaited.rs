//! Connections that a pool has lost, by those who wait for one.
//!
//! Whoever waits shows that nothing is free: a pool with a free connection hands it out at once. So
//! when none is at work either, all of them are out of the pool with nobody using them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::engine::detect::{Evidence, Numbers, Severity, Silence, View, duration, plural};
use crate::engine::fate::Fate;
use crate::engine::table::{Connection, PoolKey, Waiting};
use crate::model::{ProcessKey, Timestamp};

/// Who has waited for less may be on the way.
const LEAST_WAIT: Duration = Duration::from_secs(1);

/// Connections that are waited for in vain.
pub(super) struct Besieged<'a> {
    pub(super) connections: Vec<&'a Connection>,
    pub(super) severity: Severity,
    pub(super) evidence: Awaited,
}

/// Finds them, by process.
///
/// Waiting must have lasted, as with many waiters one after the other, and all of the process's
/// connections must have been silent for long. Busy ones will be given back, those that are used
/// show a pool that works, and in a program with several pools the silent ones may rest in another
/// than the one that is waited for. What is held by a call that still runs is not lost.
pub(super) fn find<'a>(view: &View<'a>, now: Timestamp) -> BTreeMap<ProcessKey, Vec<Besieged<'a>>> {
    let mut idle: BTreeMap<ProcessKey, Vec<&Connection>> = BTreeMap::new();
    let awaited = |process| waiting(view, process, now);
    if view.table().all_waiting().all(|(process, _)| awaited(process).is_none()) {
        return BTreeMap::new();
    }
    for connection in view.free_connections(now) {
        if awaited(connection.process).is_some() {
            idle.entry(connection.process).or_default().push(connection);
        }
    }
    idle.retain(|&process, _| nothing_works(view, process, now));
    let besieged = |(process, connections): (ProcessKey, Vec<&'a Connection>)| {
        let waiting = awaited(process)?;
        Some((process, judged(view, waiting, connections, now)))
    };
    idle.into_iter().filter_map(besieged).collect()
}

/// Those who wait in a process, if they have for long enough.
fn waiting<'a>(view: &View<'a>, process: ProcessKey, now: Timestamp) -> Option<&'a Waiting> {
    let waiting = view.table().waiting(process)?;
    let is_fresh = waiting.is_fresh(now, view.thresholds().interval);
    let longest = waiting.at.since(waiting.longest_since()?);
    let has_lasted = lasted(waiting) >= view.thresholds().silent_after / 2;
    (is_fresh && has_lasted && longest >= LEAST_WAIT).then_some(waiting)
}

/// For how long there was always somebody who waited.
fn lasted(waiting: &Waiting) -> Duration {
    let longest = waiting.longest_since().map(|since| waiting.at.since(since));
    waiting.at.since(waiting.since).max(longest.unwrap_or_default())
}

/// Whether all connections of a process that its pools could use are silent, and none is at work.
fn nothing_works(view: &View<'_>, process: ProcessKey, now: Timestamp) -> bool {
    let silent_after = view.thresholds().silent_after;
    let mut usable = view.table().connections().filter(|connection| {
        connection.process == process
            && !connection.tcp.state.closed_by_process()
            && !connection.wire.listens
            && !connection.wire.cancels
    });
    usable.all(|connection| {
        connection.silent_for(now) >= silent_after && !view.is_at_work(connection)
    })
}

/// Parts those that are held from the others.
fn judged<'a>(
    view: &View<'a>,
    waiting: &Waiting,
    connections: Vec<&'a Connection>,
    now: Timestamp,
) -> Vec<Besieged<'a>> {
    let mut pools: Vec<PoolKey> =
        connections.iter().map(|one| view.table().pool_of(one).key).collect();
    pools.sort_unstable();
    pools.dedup();
    // Connections whose last use nobody has seen may be held, which takes a longer wait to doubt.
    let is_sure = lasted(waiting) >= view.thresholds().silent_after
        || connections.iter().all(|one| view.fates().of(one) != Fate::Unknown);
    let (held, lost): (Vec<_>, Vec<_>) =
        connections.into_iter().partition(|one| view.fates().of(one) == Fate::Held);
    let besieged = |connections: Vec<&'a Connection>, severity| Besieged {
        evidence: Awaited {
            connections: connections.len(),
            waiters: waiting.count(),
            longest: waiting
                .longest_since()
                .map_or(Duration::ZERO, |since| waiting.at.since(since)),
            silence: view.silence(&connections, now),
        },
        connections,
        severity,
    };
    let severity = if pools.len() == 1 && is_sure { Severity::Leak } else { Severity::Suspect };
    let parts = [besieged(lost, severity), besieged(held, Severity::Suspect)];
    parts.into_iter().filter(|part| !part.connections.is_empty()).collect()
}

/// Connections that nobody uses, and those who wait.
#[derive(Clone, Debug)]
pub(super) struct Awaited {
    connections: usize,
    waiters: u64,
    longest: Duration,
    silence: Silence,
}

impl Awaited {
    /// The same of some of the connections.
    pub(super) fn of(&self, view: &View<'_>, members: &[&Connection], now: Timestamp) -> Self {
        Self { connections: members.len(), silence: view.silence(members, now), ..self.clone() }
    }
}

impl Evidence for Awaited {
    fn numbers(&self) -> Numbers {
        Numbers::of(self.connections)
            .count("waiting", self.waiters)
            .time("longest_wait_ms", self.longest)
            .silence(self.silence)
    }
}

/// "10 connections idle and silent for 60-110 s (threshold 60 s), while 27 callers wait for one,
/// the longest for 42 s; no connection of the process is at work".
impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiters = usize::try_from(self.waiters).unwrap_or(usize::MAX);
        let wait = if waiters == 1 { "waits for one," } else { "wait for one, the longest" };
        write!(
            f,
            "{} idle and {}, while {} {wait} for {}; no connection of the process is at work",
            plural(self.connections, "connection"),
            self.silence,
            plural(waiters, "caller"),
            duration(self.longest),
        )
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::detect::testing::{find, judge};
    use crate::engine::detect::{Reason, Severity, Verdict};
    use crate::engine::testing::{APP, World, secs};
    use crate::model::{ConnectionId, Event, StackId, Waiters, Whereabouts, WireState};

    /// A pool of four, all last used at second 10 and the following ones.
    fn pool() -> World {
        let mut world = World::new();
        for number in 0..4 {
            world.open(number, 1.0 + 0.01 * number as f64);
            let at = 10.0 + number as f64;
            world.request_of(number, at, StackId::from("pay"), 7000 + number as u32);
        }
        world
    }

    /// Looks every 10 s at one who begins to wait every `every` seconds, from second 20 to `until`.
    fn wait(world: &mut World, every: f64, until: f64) {
        let mut at = 20.0;
        while at <= until {
            let since = secs((at / every).floor() * every);
            let waiters = vec![Waiters { count: 3, since, stack: StackId::from("wait") }];
            world.apply(&Event::Waiting { process: APP, at: secs(at), waiters }, secs(at));
            at += 10.0;
        }
    }

    fn see(world: &mut World, number: u64, place: Whereabouts) {
        let id = ConnectionId(number);
        let request = world.table.get(id).unwrap().requests.count;
        world.apply(&Event::UserSeen { id, request, place }, secs(80.0));
    }

    fn abandoned(world: &World, at: f64) -> Vec<Verdict> {
        let verdicts = judge(world, at);
        find(&verdicts, Reason::Abandoned).into_iter().cloned().collect()
    }

    #[test]
    fn who_waits_while_nothing_is_at_work_proves_that_all_is_lost() {
        let mut world = pool();
        for number in 0..4 {
            see(&mut world, number, Whereabouts::Ended);
        }
        wait(&mut world, 30.0, 80.0);
        let found = abandoned(&world, 80.0);
        assert_eq!((found[0].severity, found[0].connections.len()), (Severity::Leak, 4));
        assert_eq!(
            found[0].evidence.to_string(),
            "4 connections idle and silent for 66-69 s (threshold 60 s), while 3 callers wait for \
             one, the longest for 20 s; no connection of the process is at work"
        );
    }

    #[test]
    fn a_pool_that_was_exhausted_before_the_trace_takes_a_longer_wait() {
        let mut world = pool();
        wait(&mut world, 15.0, 70.0);
        assert_eq!(abandoned(&world, 75.0)[0].severity, Severity::Suspect);
        wait(&mut world, 15.0, 80.0);
        assert_eq!(abandoned(&world, 85.0)[0].severity, Severity::Leak);
    }

    #[test]
    fn healthy_programs_are_waited_for_too() {
        let is_leak = |world: &World, at| {
            abandoned(world, at).iter().any(|verdict| verdict.severity == Severity::Leak)
        };
        // Nobody waits; only since a moment ago; nobody was looked for any more.
        assert!(!is_leak(&pool(), 80.0));
        let mut world = pool();
        let waiters = vec![Waiters { count: 9, since: secs(79.0), stack: StackId::from("wait") }];
        world.apply(&Event::Waiting { process: APP, at: secs(80.0), waiters }, secs(80.0));
        assert!(!is_leak(&world, 80.0));
        let mut world = pool();
        wait(&mut world, 1e9, 80.0);
        assert!(!is_leak(&world, 120.0));
        // One connection is at work, or was just used.
        for state in [WireState::Busy, WireState::Idle] {
            for at in [12.5, 70.0] {
                let mut world = pool();
                world.request(0, at, "report", state);
                wait(&mut world, 1e9, 100.0);
                let works = at > 60.0 || state == WireState::Busy;
                assert_eq!(is_leak(&world, 100.0), !works, "{state:?} {at}");
            }
        }
        // Waits are short.
        let mut world = pool();
        wait(&mut world, 0.5, 100.0);
        assert!(!is_leak(&world, 100.0));
    }

    #[test]
    fn one_of_two_pools_may_rest() {
        let mut world = pool();
        for number in 0..4 {
            let user = if number < 2 { "shop" } else { "audit" };
            world.set(number, |usage| usage.wire.user = Some(user.into()));
        }
        wait(&mut world, 1e9, 100.0);
        let found = abandoned(&world, 100.0);
        assert!(!found.is_empty() && found.iter().all(|one| one.severity == Severity::Suspect));
    }
}
