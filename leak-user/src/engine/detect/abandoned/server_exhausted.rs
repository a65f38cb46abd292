//! A second way to be abandoned: a pool that holds most of a full server's connections and uses
//! none.
//!
//! This finds leaks that were over before the trace began: everything is silent then, nothing
//! grows, and only the server knows the past.
//!
//! An idle pool is silent too, and its size may be a mistake without being a leak. So all of this
//! must hold, by the server's word. The server is full, and the pool has more than half of it. All
//! of the pool is silent, idle, and was used once. Connections were opened one after the other
//! while earlier ones were idle; a pool that fills up at once or with its load does not do that.
//! And it has stopped opening; a pool that replaces connections by age does not stop.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::engine::detect::{Evidence, Numbers, Silence, View, plural};
use crate::engine::table::{Connection, PoolKey, Server};
use crate::model::{Timestamp, WireState};

/// Least number of steps in a staircase.
const STEPS: usize = 3;
/// How long nothing must have been opened, in multiples of the longest pause between two openings.
const QUIET: u32 = 3;

/// The pools that have exhausted their server, each with its connections that can be judged.
pub(super) fn find<'a>(view: &View<'a>, now: Timestamp) -> BTreeMap<PoolKey, Vec<&'a Connection>> {
    let table = view.table();
    if !table.servers().values().any(Server::is_full) {
        return BTreeMap::new();
    }
    let mut pools: BTreeMap<PoolKey, Vec<&Connection>> = BTreeMap::new();
    for connection in table.connections() {
        pools.entry(table.pool_of(connection).key).or_default().push(connection);
    }
    pools.retain(|_, members| is_hoarded(view, members, now));
    pools.values_mut().for_each(Vec::clear);
    for connection in view.connections() {
        if let Some(members) = pools.get_mut(&table.pool_of(connection).key) {
            members.push(connection);
        }
    }
    pools
}

/// A pool that has all that its server allows.
#[derive(Debug)]
pub(super) struct ServerExhausted {
    connections: usize,
    silence: Silence,
    /// Connections that the server allows.
    usable: usize,
}

impl ServerExhausted {
    pub(super) fn new(view: &View<'_>, members: &[&Connection], now: Timestamp) -> Self {
        let usable = members.first().and_then(|member| usable(view, member));
        Self {
            connections: members.len(),
            silence: view.silence(members, now),
            usable: usable.map_or(0, |(_, usable)| usable),
        }
    }
}

impl Evidence for ServerExhausted {
    fn numbers(&self) -> Numbers {
        Numbers::of(self.connections).count("server_limit", self.usable).silence(self.silence)
    }
}

impl fmt::Display for ServerExhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections = plural(self.connections, "connection");
        let Self { silence, usable, .. } = self;
        write!(
            f,
            "all {connections} of the pool idle and {silence}, opened one after the other while \
             earlier ones lay idle, and the server has none left of the {usable} that it allows"
        )
    }
}

fn is_hoarded(view: &View<'_>, members: &[&Connection], now: Timestamp) -> bool {
    let Some((server, usable)) = members.first().and_then(|first| usable(view, first)) else {
        return false;
    };
    server.is_full()
        && members.len() >= STEPS
        && 2 * members.len() > usable
        && members.iter().all(|member| is_out_of_use(view, member, now))
        && was_opened_in_steps(view, members, now)
}

/// The server that lists `connection`, and how many connections it allows.
fn usable<'a>(view: &View<'a>, connection: &Connection) -> Option<(&'a Server, usize)> {
    let server = view.table().server_of(connection)?;
    Some((server, server.settings.as_ref()?.usable() as usize))
}

/// Whether it is silent, idle by the server's word on this silence, and was used before.
fn is_out_of_use(view: &View<'_>, connection: &Connection, now: Timestamp) -> bool {
    let Some(side) = &connection.server else { return false };
    let idle = matches!(
        side.dialogue(),
        WireState::Idle | WireState::InTransaction | WireState::FailedTransaction
    );
    connection.silent_for(now) >= view.thresholds().silent_after
        && side.at >= connection.silent_since()
        && idle
        && !connection.wire.listens
        && side.session.query.is_some()
}

fn was_opened_in_steps(view: &View<'_>, members: &[&Connection], now: Timestamp) -> bool {
    let Some(first_silent) = members.iter().map(|member| member.silent_since()).min() else {
        return false;
    };
    let Some(mut began) =
        members.iter().map(|member| member.began()).collect::<Option<Vec<Timestamp>>>()
    else {
        return false;
    };
    began.sort_unstable();
    began.retain(|&began| began > first_silent.after(view.grace()));
    let pauses = |least: Duration| {
        began
            .windows(2)
            .filter_map(|pair| Some(pair.last()?.since(*pair.first()?)))
            .filter(move |&pause| pause >= least)
    };
    let longest = began.first().map(|first| first.since(first_silent));
    let longest = longest.max(pauses(Duration::ZERO).max()).unwrap_or_default();
    let quiet = began.last().map(|last| now.since(*last)).unwrap_or_default();
    // The first that was opened late is a step, and each that came clearly after another.
    began.len().min(1) + pauses(view.grace()).count() >= STEPS - 1 && quiet >= longest * QUIET
}

#[cfg(test)]
mod tests {
    use crate::engine::detect::testing::{find, judge};
    use crate::engine::detect::{Reason, Severity, Verdict};
    use crate::engine::testing::{World, listed, server_lists, session};
    use crate::model::server::SessionState;

    /// Four connections opened before the trace began, each at one second and last used at another;
    /// the server allows 7 and, where it is full, has two sessions more. Judged at second 300.
    fn found(opened: [f64; 4], used: [f64; 4], full: bool) -> Vec<Verdict> {
        let mut world = World::new();
        let connections: Vec<_> = (1..=4).zip(used).map(|(id, at)| listed(id, at)).collect();
        world.inventory(280.0, connections);
        let mut sessions: Vec<_> = (1..=4)
            .zip(opened)
            .map(|(id, at)| session(id, 290.0 - at, SessionState::Idle))
            .collect();
        if full {
            sessions.extend([8, 9].map(|id| session(id, 5.0, SessionState::Active)));
        }
        world.hear(290.0, server_lists(sessions));
        let verdicts = judge(&world, 300.0);
        find(&verdicts, Reason::Abandoned)
            .into_iter()
            .filter(|verdict| verdict.severity == Severity::Leak)
            .cloned()
            .collect()
    }

    const STAIRS: [f64; 4] = [10.0, 30.0, 50.0, 70.0];

    #[test]
    fn a_staircase_that_is_over_fills_the_server() {
        let found = found(STAIRS, [11.0, 31.0, 51.0, 71.0], true);
        let [verdict] = found.as_slice() else { panic!("{found:#?}") };
        assert_eq!(verdict.connections.len(), 4);
        assert_eq!(
            verdict.evidence.to_string(),
            "all 4 connections of the pool idle and silent for 228-288 s (threshold 60 s), opened \
             one after the other while earlier ones lay idle, and the server has none left of the 7 \
             that it allows"
        );
    }

    #[test]
    fn a_server_with_room_is_not_exhausted() {
        assert!(found(STAIRS, [11.0, 31.0, 51.0, 71.0], false).is_empty());
    }

    #[test]
    fn a_pool_that_was_filled_at_once_is_idle() {
        assert!(found([10.0, 10.1, 10.2, 10.3], [11.0, 31.0, 51.0, 71.0], true).is_empty());
    }

    #[test]
    fn a_pool_that_grew_with_its_load_is_idle() {
        assert!(found(STAIRS, [200.0, 201.0, 202.0, 203.0], true).is_empty());
    }

    #[test]
    fn a_pool_that_goes_on_replacing_its_connections_is_idle() {
        let opened = [10.0, 80.0, 150.0, 220.0];
        assert!(found(opened, opened.map(|at| at + 1.0), true).is_empty());
    }

    #[test]
    fn one_that_is_in_use_acquits_the_pool() {
        assert!(found(STAIRS, [11.0, 31.0, 51.0, 279.0], true).is_empty());
    }
}
