//! A result that nobody reads.

use crate::detect::evidence::plural;
use crate::detect::{Detector, Reason, Severity, Verdict, View};
use crate::event::{Timestamp, WireState};
use crate::table::Connection;

/// How many inventories in a row must have found bytes unread: one may fall between the arrival and
/// the reading.
const INVENTORIES: u32 = 2;

/// Finds connections whose result lies unread: nobody can use them before it is read.
///
/// A connection that is known to be idle has had its answer. What lies unread there the server sent
/// unasked, a notification or a changed setting, and a healthy pool reads it at the next use.
pub(super) struct UnreadResult;

impl Detector for UnreadResult {
    fn reason(&self) -> Reason {
        Reason::UnreadResult
    }

    fn judge(&self, view: &View<'_>, now: Timestamp) -> Vec<Verdict> {
        let unread = |connection: &&Connection| {
            connection.unread_bytes.is_some_and(|bytes| bytes > 0)
                && connection.unread_inventories >= INVENTORIES
                && connection.wire.state != WireState::Idle
        };
        let accused = view.silent_connections(now).filter(unread);
        view.verdicts(self.reason(), accused, |members| {
            let bytes: u64 =
                members.iter().map(|member| u64::from(member.unread_bytes.unwrap_or(0))).sum();
            let connections = plural(members.len(), "connection");
            let silence = view.silence(members, now);
            let evidence =
                format!("{bytes} bytes of results lie unread in {connections}, {silence}");
            (Severity::Leak, evidence)
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::detect::testing::{find, judge};
    use crate::detect::{Reason, Severity};
    use crate::event::WireState;
    use crate::table::testing::{World, listed};

    fn with_unread(state: WireState, inventories: u32) -> World {
        let mut world = World::new();
        world.open(1, 1.0);
        world.request(1, 5.0, "cursor", state);
        for number in 0..inventories {
            let mut socket = listed(1, 5.0);
            socket.unread_bytes = 9000;
            world.inventory(10.0 + f64::from(number), vec![socket]);
        }
        world
    }

    #[test]
    fn needs_two_inventories() {
        let world = with_unread(WireState::Busy, 1);
        assert!(find(&judge(&world, 100.0), Reason::UnreadResult).is_empty());
        let world = with_unread(WireState::Busy, 2);
        let verdicts = judge(&world, 100.0);
        let found = find(&verdicts, Reason::UnreadResult);
        assert_eq!(found[0].severity, Severity::Leak);
        assert_eq!(
            found[0].evidence,
            "9000 bytes of results lie unread in 1 connection, silent for 94 s (threshold 60 s)"
        );
        assert_eq!(verdicts.len(), 1, "it awaits no response besides");
    }

    #[test]
    fn a_notice_to_an_idle_connection_is_no_result() {
        let world = with_unread(WireState::Idle, 5);
        let verdicts = judge(&world, 100.0);
        assert!(verdicts.iter().all(|verdict| verdict.severity == Severity::Info));
    }
}
