//! Connections that are taken from the program's own pool, by its word, and silent.
//!
//! Somebody may hold one for a good reason: a lock of the session, a slow job between two
//! statements. So that alone is a suspicion and no proof.

use std::fmt;

use crate::engine::detect::{Evidence, Numbers, Silence, View, plural};
use crate::engine::table::Connection;
use crate::model::Timestamp;

#[derive(Debug)]
pub(super) struct CheckedOut {
    connections: usize,
    silence: Silence,
}

impl CheckedOut {
    pub(super) fn new(view: &View<'_>, members: &[&Connection], now: Timestamp) -> Self {
        Self { connections: members.len(), silence: view.silence(members, now) }
    }
}

impl Evidence for CheckedOut {
    fn numbers(&self) -> Numbers {
        Numbers::of(self.connections).count("checked_out", self.connections).silence(self.silence)
    }
}

/// "2 connections taken from their pool, by its own word, idle and silent for 70 s (threshold
/// 60 s)".
impl fmt::Display for CheckedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections = plural(self.connections, "connection");
        write!(f, "{connections} taken from their pool, by its own word, idle and {}", self.silence)
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::detect::testing::{find, judge};
    use crate::engine::detect::{Reason, Severity};
    use crate::engine::testing::{APP, World, secs};
    use crate::model::pools::{PooledConnection, ReadPool};
    use crate::model::{ConnectionId, Event, WireState};

    /// The pool has connections 1 to 4; 3 and 4 are taken.
    fn read(world: &mut World, at: f64) {
        let connections = (1..=4)
            .map(|id| PooledConnection { id: ConnectionId(id), checked_out: id > 2 })
            .collect();
        let kind = "database/sql".into();
        let pools = vec![ReadPool { kind, number: 1, numbers: None, connections }];
        let event = Event::PoolsRead { process: APP, at: secs(at), pools };
        world.apply(&event, secs(at + 0.1));
    }

    fn world() -> World {
        let mut world = World::new();
        for id in 1..=4 {
            world.open(id, 1.0);
            world.request(id, 2.0, "app", WireState::Idle);
        }
        world
    }

    #[test]
    fn what_is_taken_and_silent_is_suspected_from_the_first_on() {
        let mut world = world();
        read(&mut world, 95.0);
        let verdicts = judge(&world, 100.0);
        let [verdict] = find(&verdicts, Reason::Abandoned)[..] else { panic!("{verdicts:?}") };
        assert_eq!(verdict.severity, Severity::Suspect);
        assert_eq!(verdict.connections, [3, 4].map(ConnectionId));
        assert_eq!(
            verdict.evidence.to_string(),
            "2 connections taken from their pool, by its own word, idle and silent for 97 s \
             (threshold 60 s)"
        );
        let [silent] = find(&verdicts, Reason::Silent)[..] else { panic!("{verdicts:?}") };
        assert_eq!(silent.connections, [1, 2].map(ConnectionId));
        assert!(silent.evidence.to_string().contains("2 connections (2 in their pool)"));
    }

    #[test]
    fn what_was_read_long_ago_or_before_the_last_use_tells_nothing() {
        let mut world = world();
        read(&mut world, 70.0);
        assert!(find(&judge(&world, 100.0), Reason::Abandoned).is_empty(), "25 s are the limit");
        read(&mut world, 95.0);
        world.request(3, 96.0, "app", WireState::Idle);
        let verdicts = judge(&world, 97.0);
        let [verdict] = find(&verdicts, Reason::Abandoned)[..] else { panic!("{verdicts:?}") };
        assert_eq!(verdict.connections, [ConnectionId(4)]);
    }

    /// The staircase of a leak, by connections 1 to 12 in this state, of which pools say that they
    /// are in them: all in one, or each in one of its own.
    fn in_pools(state: WireState, apart: bool) -> World {
        let mut world = World::new();
        for id in 1..=12 {
            world.open(id, 10.0 * id as f64);
            world.request(id, 10.0 * id as f64 + 0.1, "leak", state);
        }
        let accused = judge(&world, 200.0);
        assert!(accused.iter().any(|verdict| verdict.severity == Severity::Leak), "{accused:?}");
        let pooled = |id| PooledConnection { id: ConnectionId(id), checked_out: false };
        let all: Vec<_> = (1..=12).map(pooled).collect();
        let pool = |(number, connections): (u64, &[PooledConnection])| ReadPool {
            kind: "database/sql".into(),
            number,
            numbers: None,
            connections: connections.to_vec(),
        };
        let pools = (1..).zip(all.chunks(if apart { 1 } else { 12 })).map(pool).collect();
        world.apply(&Event::PoolsRead { process: APP, at: secs(199.0), pools }, secs(199.1));
        world
    }

    fn gravest(world: &World) -> Severity {
        judge(world, 200.0).iter().map(|verdict| verdict.severity).max().unwrap()
    }

    #[test]
    fn what_is_in_the_pool_is_not_lost() {
        assert_eq!(gravest(&in_pools(WireState::Idle, false)), Severity::Info);
    }

    #[test]
    fn a_pool_for_each_connection_is_lost_itself() {
        assert_eq!(gravest(&in_pools(WireState::Idle, true)), Severity::Leak);
    }

    #[test]
    fn a_transaction_that_is_left_open_in_the_pool_is_accused() {
        assert_eq!(gravest(&in_pools(WireState::InTransaction, false)), Severity::Leak);
    }
}
