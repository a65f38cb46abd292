//! A connection that the server has closed and the process has not.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

use crate::engine::detect::wording::Among;
use crate::engine::detect::{
    Detector, Evidence, Numbers, Reason, Severity, Span, Verdict, View, duration, plural,
};
use crate::engine::table::{Connection, PoolKey};
use crate::model::{TcpState, Timestamp};

/// How long after the server closed a connection it is suspect that the process still holds it,
/// unless less silence counts: a process that notices needs no minute to close. Severity `leak`
/// takes as long as silence does.
const HELD_AFTER: Duration = Duration::from_secs(10);
/// How many different amounts of growth make a staircase.
const STEPS: usize = 3;

/// Finds connections that have been in CLOSE_WAIT for long, or reset and held for long.
///
/// A process that looks at them sees the end of file. A healthy pool does not look at connections
/// deep in its stack: it takes the top one, finds it dead and replaces it, so it opens and uses
/// others beside the dead ones. But it does not grow before it has come upon all of them. A leak
/// therefore takes growth beyond the size that the pool had when the server closed, dead
/// connections included: by as many as are dead, or in several steps with the server closing some
/// before each.
pub(super) struct CloseWait;

/// A dead connection, and how much its pool has grown since it died.
struct Dead<'a> {
    connection: &'a Connection,
    growth: i64,
}

impl Detector for CloseWait {
    fn reason(&self) -> Reason {
        Reason::CloseWait
    }

    fn severity(&self) -> Severity {
        Severity::Leak
    }

    fn judge(&self, view: &View<'_>, now: Timestamp) -> Vec<Verdict> {
        let silent_after = view.thresholds().silent_after;
        let held_after = silent_after.min(HELD_AFTER);
        let mut pools: BTreeMap<PoolKey, Vec<Dead<'_>>> = BTreeMap::new();
        for connection in view.connections().filter(|known| known.tcp.state.ended_by_server()) {
            let ended_at = connection.tcp.state_changed_at;
            if now.since(ended_at) >= held_after {
                let pool = view.table().pool_of(connection);
                let growth = pool.growth_since(ended_at);
                pools.entry(pool.key).or_default().push(Dead { connection, growth });
            }
        }
        if pools.is_empty() {
            return Vec::new();
        }
        let active = last_activity(view);
        let (mut lost, mut left) = (Vec::new(), Vec::new());
        for dead in pools.into_values() {
            let condemned = is_outgrown(&dead);
            let is_long =
                |dead: &Dead<'_>| now.since(dead.connection.tcp.state_changed_at) >= silent_after;
            for one in dead {
                let is_lost = condemned && one.growth > 0 && is_long(&one);
                let others = if is_lost { &mut lost } else { &mut left };
                others.push(one.connection);
            }
        }
        let mut verdicts = view.verdicts(self.reason(), lost, |members| {
            let growth = members.iter().map(|member| {
                view.table().pool_of(member).growth_since(member.tcp.state_changed_at)
            });
            let opened = Meanwhile::Opened(growth.max().unwrap_or_default());
            (self.severity(), Ended::new(members, silent_after, now, opened))
        });
        verdicts.extend(view.verdicts(self.reason(), left, |members| {
            let used_others = members.iter().any(|member| {
                let key = view.table().pool_of(member).key;
                active.get(&key).is_some_and(|&at| at > member.tcp.state_changed_at)
            });
            let meanwhile = if used_others { Meanwhile::UsedOthers } else { Meanwhile::Nothing };
            (Severity::Suspect, Ended::new(members, held_after, now, meanwhile))
        }));
        verdicts
    }

    fn next_step(&self, _severity: Severity, _place: &str) -> Option<String> {
        let step = "have the pool check connections before use and close broken ones; the server's \
                    log says why it closed them";
        Some(step.to_owned())
    }
}

/// Whether a pool has grown beyond its dead connections, as a healthy pool does not.
fn is_outgrown(dead: &[Dead<'_>]) -> bool {
    let steps: BTreeSet<i64> =
        dead.iter().map(|dead| dead.growth).filter(|&growth| growth > 0).collect();
    let most = steps.last().and_then(|&most| usize::try_from(most).ok());
    most.is_some_and(|most| most >= dead.len() || steps.len() >= STEPS)
}

/// Connections that the server has ended, and what the process did since.
#[derive(Debug)]
struct Ended {
    connections: usize,
    /// How many of them the server has reset.
    reset: usize,
    /// How long ago.
    since: Span,
    threshold: Duration,
    meanwhile: Meanwhile,
}

/// What the process did while it held ended connections.
#[derive(Debug)]
enum Meanwhile {
    Nothing,
    UsedOthers,
    Opened(i64),
}

impl Ended {
    fn new(
        members: &[&Connection],
        threshold: Duration,
        now: Timestamp,
        meanwhile: Meanwhile,
    ) -> Self {
        Self {
            connections: members.len(),
            reset: members.iter().filter(|member| member.tcp.state == TcpState::Close).count(),
            since: members.iter().map(|member| now.since(member.tcp.state_changed_at)).collect(),
            threshold,
            meanwhile,
        }
    }
}

impl Evidence for Ended {
    fn numbers(&self) -> Numbers {
        let numbers = Numbers::of(self.connections)
            .count("reset", self.reset)
            .span("ended_min_ms", "ended_max_ms", self.since)
            .time("threshold_ms", self.threshold);
        match self.meanwhile {
            Meanwhile::Opened(opened) => numbers.count("opened_since", opened),
            Meanwhile::Nothing | Meanwhile::UsedOthers => numbers,
        }
    }
}

/// "the server closed 2 connections 80 s ago (threshold 60 s) and the process did not".
impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, reset, since, threshold, meanwhile } = self;
        let (count, threshold) = (plural(*connections, "connection"), duration(*threshold));
        if reset == connections {
            let them = if *reset == 1 { "it" } else { "them" };
            write!(
                f,
                "the server reset {count} {since} ago (threshold {threshold}); the process still \
                 holds {them}"
            )?;
        } else {
            let reset = Among(*reset, "by reset");
            write!(
                f,
                "the server closed {count}{reset} {since} ago (threshold {threshold}) and the \
                 process did not"
            )?;
        }
        match meanwhile {
            Meanwhile::Nothing => Ok(()),
            Meanwhile::UsedOthers => f.write_str(", while it used others"),
            Meanwhile::Opened(opened) => write!(f, ", while it opened {opened} more"),
        }
    }
}

/// When each pool last opened a connection, or used one that is not dead.
fn last_activity(view: &View<'_>) -> HashMap<PoolKey, Timestamp> {
    let mut latest = HashMap::new();
    for pool in view.table().pools() {
        if let Some(opened) = pool.last_opened() {
            latest.insert(pool.key, opened);
        }
    }
    for connection in view.table().connections() {
        if !connection.tcp.state.ended_by_server() {
            let at = latest.entry(view.table().pool_of(connection).key).or_default();
            *at = connection.silent_since().max(*at);
        }
    }
    latest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::detect::testing::{find, judge};
    use crate::engine::testing::{World, secs};
    use crate::model::WireState;

    fn end(world: &mut World, number: u64, at: f64, state: TcpState) {
        world.set(number, |usage| {
            usage.tcp_state = state;
            usage.state_changed_at = secs(at);
        });
    }

    fn half_closed_at_10(world: &mut World, number: u64) {
        world.open(number, 1.0);
        end(world, number, 10.0, TcpState::CloseWait);
    }

    /// The severities, the heaviest first, with how many connections each has.
    fn severities(verdicts: &[Verdict]) -> Vec<(Severity, usize)> {
        let found = find(verdicts, Reason::CloseWait);
        found.iter().map(|verdict| (verdict.severity, verdict.connections.len())).collect()
    }

    #[test]
    fn use_of_others_is_no_proof() {
        let mut world = World::new();
        half_closed_at_10(&mut world, 1);
        world.open(2, 2.0);
        assert!(judge(&world, 19.0).is_empty());
        assert_eq!(severities(&judge(&world, 20.0)), [(Severity::Suspect, 1)]);
        let quiet = &judge(&world, 90.0)[0];
        assert_eq!((quiet.reason, quiet.severity), (Reason::CloseWait, Severity::Suspect));
        world.request(2, 85.0, "query", WireState::Idle);
        let busy = &judge(&world, 90.0)[0];
        assert_eq!((busy.reason, busy.severity), (Reason::CloseWait, Severity::Suspect));
        assert_eq!(
            busy.evidence.to_string(),
            "the server closed 1 connection 80 s ago (threshold 10 s) and the process did not, \
             while it used others"
        );
    }

    #[test]
    fn a_pool_that_replaces_its_top_one_is_healthy() {
        let mut world = World::new();
        for number in 1..=4 {
            half_closed_at_10(&mut world, number);
        }
        for round in 0..20 {
            world.close(4 + round, 20.0 + 10.0 * round as f64);
            world.open(5 + round, 20.1 + 10.0 * round as f64);
        }
        assert_eq!(severities(&judge(&world, 300.0)), [(Severity::Suspect, 3)]);
    }

    #[test]
    fn a_pool_whose_idle_ones_the_server_times_out_is_healthy() {
        let mut world = World::new();
        for number in 1..=6 {
            world.open(number, 1.0);
        }
        // The top of the stack is replaced after each quiet time; what lies deeper stays dead.
        for number in 1..=5 {
            end(&mut world, number, 40.0 * number as f64, TcpState::CloseWait);
            world.close(5 + number, 40.0 * number as f64 + 1.0);
            world.open(6 + number, 40.0 * number as f64 + 1.1);
        }
        assert_eq!(severities(&judge(&world, 500.0)), [(Severity::Suspect, 5)]);
    }

    #[test]
    fn a_pool_that_opens_as_many_as_it_has_lost_leaks() {
        let mut world = World::new();
        for number in 1..=3 {
            half_closed_at_10(&mut world, number);
        }
        for number in 4..=6 {
            world.open(number, 20.0);
        }
        assert_eq!(severities(&judge(&world, 60.0)), [(Severity::Suspect, 3)]);
        let verdicts = judge(&world, 75.0);
        assert_eq!(severities(&verdicts), [(Severity::Leak, 3)]);
        assert_eq!(
            find(&verdicts, Reason::CloseWait)[0].evidence.to_string(),
            "the server closed 3 connections 65 s ago (threshold 60 s) and the process did not, \
             while it opened 3 more"
        );
    }

    #[test]
    fn a_staircase_of_server_closes_leaks_and_the_latest_is_not_lifted() {
        let mut world = World::new();
        for number in 1..=12 {
            world.open(number, 20.0 * number as f64);
        }
        for number in 1..=12 {
            end(&mut world, number, 100.0 + 20.0 * number as f64, TcpState::CloseWait);
        }
        // Those that died before the pool stopped to grow have seen growth.
        assert_eq!(
            severities(&judge(&world, 500.0)),
            [(Severity::Leak, 6), (Severity::Suspect, 6)]
        );
    }

    #[test]
    fn reset_connections_are_judged_like_closed_ones() {
        let mut world = World::new();
        for number in 1..=2 {
            world.open(number, 1.0);
            end(&mut world, number, 10.0, TcpState::Close);
        }
        let verdicts = judge(&world, 90.0);
        assert_eq!(severities(&verdicts), [(Severity::Suspect, 2)]);
        assert_eq!(verdicts.len(), 1);
        assert_eq!(
            verdicts[0].evidence.to_string(),
            "the server reset 2 connections 80 s ago (threshold 10 s); \
             the process still holds them"
        );
        for number in 3..=4 {
            world.open(number, 20.0);
        }
        assert_eq!(severities(&judge(&world, 75.0)), [(Severity::Leak, 2)]);
    }

    #[test]
    fn what_the_process_has_closed_is_not_judged() {
        let mut world = World::new();
        half_closed_at_10(&mut world, 1);
        world.set(1, |usage| usage.tcp_state = TcpState::LastAck);
        assert!(judge(&world, 900.0).is_empty());
    }
}
