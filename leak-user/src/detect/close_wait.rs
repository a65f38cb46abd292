//! A connection that the server has closed and the process has not.

use std::collections::HashMap;

use crate::detect::evidence::{duration, plural, span};
use crate::detect::{Detector, Reason, Severity, Verdict, View};
use crate::event::{TcpState, Timestamp};
use crate::table::{Connection, PoolKey};

/// Finds connections that have been in CLOSE_WAIT for long. A process that looks at them sees the
/// end of file; who opens or uses others of the same group meanwhile has lost sight of these.
pub(super) struct CloseWait;

impl Detector for CloseWait {
    fn reason(&self) -> Reason {
        Reason::CloseWait
    }

    fn judge(&self, view: &View<'_>, now: Timestamp) -> Vec<Verdict> {
        let threshold = view.thresholds().silent_after;
        let accused: Vec<&Connection> = view
            .connections()
            .filter(|connection| connection.tcp_state == TcpState::CloseWait)
            .filter(|connection| now.since(connection.state_changed_at) >= threshold)
            .collect();
        if accused.is_empty() {
            return Vec::new();
        }
        let active = last_activity(view);
        let ignored = |connection: &Connection| {
            let key = view.table().pool_of(connection).key;
            active.get(&key).is_some_and(|&at| at > connection.state_changed_at)
        };
        view.verdicts(self.reason(), accused, |members| {
            let ages = members.iter().map(|connection| now.since(connection.state_changed_at));
            let what = format!(
                "the server closed {} {} ago (threshold {}) and the process did not",
                plural(members.len(), "connection"),
                span(ages),
                duration(threshold)
            );
            if members.iter().any(|connection| ignored(connection)) {
                (Severity::Leak, format!("{what}, while it used others"))
            } else {
                (Severity::Suspect, what)
            }
        })
    }
}

/// When each group last opened a connection, or used one that is not in CLOSE_WAIT itself.
fn last_activity(view: &View<'_>) -> HashMap<PoolKey, Timestamp> {
    let mut latest = HashMap::new();
    for pool in view.table().pools() {
        if let Some(opened) = pool.last_opened() {
            latest.insert(pool.key, opened);
        }
    }
    for connection in view.table().connections() {
        if connection.tcp_state != TcpState::CloseWait {
            let at = latest.entry(view.table().pool_of(connection).key).or_default();
            *at = connection.silent_since().max(*at);
        }
    }
    latest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::testing::judge;
    use crate::event::WireState;
    use crate::table::testing::{World, secs};

    fn half_closed_at_10(world: &mut World, number: u64) {
        world.open(number, 1.0);
        world.set(number, |usage| {
            usage.tcp_state = TcpState::CloseWait;
            usage.state_changed_at = secs(10.0);
        });
    }

    #[test]
    fn a_quiet_process_is_suspect_and_a_busy_one_leaks() {
        let mut world = World::new();
        half_closed_at_10(&mut world, 1);
        world.open(2, 2.0);
        assert!(judge(&world, 60.0).is_empty());
        let quiet = &judge(&world, 90.0)[0];
        assert_eq!((quiet.reason, quiet.severity), (Reason::CloseWait, Severity::Suspect));
        world.request(2, 85.0, "query", WireState::Idle);
        let busy = &judge(&world, 90.0)[0];
        assert_eq!((busy.reason, busy.severity), (Reason::CloseWait, Severity::Leak));
        assert_eq!(
            busy.evidence,
            "the server closed 1 connection 80 s ago (threshold 60 s) and the process did not, \
             while it used others"
        );
    }

    #[test]
    fn a_short_lived_connection_counts_as_use() {
        let mut world = World::new();
        half_closed_at_10(&mut world, 1);
        world.open(2, 20.0);
        world.close(2, 21.0);
        assert_eq!(judge(&world, 90.0)[0].severity, Severity::Leak);
    }

    #[test]
    fn what_the_process_has_closed_is_not_judged() {
        let mut world = World::new();
        half_closed_at_10(&mut world, 1);
        world.set(1, |usage| usage.tcp_state = TcpState::LastAck);
        assert!(judge(&world, 900.0).is_empty());
    }
}
