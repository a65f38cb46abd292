//! A result that nobody reads.

use std::fmt;

use crate::engine::detect::{
    Detector, Evidence, Numbers, Reason, Severity, Silence, Verdict, View, plural,
};
use crate::engine::table::Connection;
use crate::model::{Timestamp, WireState};

/// How many inventories in a row must have found unread bytes: a single one may fall between
/// arrival and reading.
const INVENTORIES: u32 = 2;

/// Notices and changed settings, which the server sends unasked, are smaller than this.
const MORE_THAN_NOTICES: u32 = 1024;

/// Finds connections with an unread result: nobody can use them before it is read.
///
/// A connection that is known to be idle has had its answer. Unread bytes there are a notification
/// or a changed setting, which a healthy pool reads at the next use. Where the state is unknown, it
/// takes a request of whose answer nothing was read, or more bytes than notices have; anything less
/// is left to the other detectors.
pub(super) struct UnreadResult;

/// Whether the unread bytes of `connection` can only be the answer to a request.
fn is_result(connection: &Connection, bytes: u32) -> bool {
    match connection.wire.state {
        WireState::Idle => false,
        WireState::Unknown => {
            connection.is_answer_untouched()
                || (bytes >= MORE_THAN_NOTICES && !connection.wire.listens)
        }
        _ => true,
    }
}

impl Detector for UnreadResult {
    fn reason(&self) -> Reason {
        Reason::UnreadResult
    }

    fn severity(&self) -> Severity {
        Severity::Leak
    }

    fn judge(&self, view: &View<'_>, now: Timestamp) -> Vec<Verdict> {
        let unread = |connection: &&Connection| {
            connection.traffic.unread_inventories >= INVENTORIES
                && connection
                    .traffic
                    .unread_bytes
                    .is_some_and(|bytes| bytes > 0 && is_result(connection, bytes))
        };
        let accused = view.silent_connections(now).filter(unread);
        view.verdicts(self.reason(), accused, |members| {
            let unread = members.iter().filter_map(|member| member.traffic.unread_bytes);
            let evidence = UnreadBytes {
                connections: members.len(),
                bytes: unread.map(u64::from).sum(),
                silence: view.silence(members, now),
            };
            (self.severity(), evidence)
        })
    }

    fn next_step(&self, _severity: Severity, place: &str) -> Option<String> {
        Some(format!(
            "read the result to its end, or close it, {place}; stopping in the middle leaves the \
             connection unusable"
        ))
    }
}

#[derive(Debug)]
struct UnreadBytes {
    connections: usize,
    bytes: u64,
    silence: Silence,
}

impl Evidence for UnreadBytes {
    fn numbers(&self) -> Numbers {
        Numbers::of(self.connections).count("unread_bytes", self.bytes).silence(self.silence)
    }
}

/// "9000 bytes of results lie unread in 1 connection, silent for 92 s (threshold 60 s)".
impl fmt::Display for UnreadBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections = plural(self.connections, "connection");
        let Self { bytes, silence, .. } = self;
        write!(f, "{bytes} bytes of results lie unread in {connections}, {silence}")
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::detect::testing::{find, judge};
    use crate::engine::detect::{Reason, Severity, Verdict};
    use crate::engine::testing::{World, listed, secs};
    use crate::model::WireState;

    fn with_unread(state: WireState, inventories: u32) -> World {
        let mut world = World::new();
        world.open(1, 1.0);
        world.request(1, 5.0, "cursor", state);
        list_unread(&mut world, 9000, inventories);
        world
    }

    /// Lists connection 1 with bytes that came at second 8 and that nobody reads.
    fn list_unread(world: &mut World, bytes: u32, inventories: u32) {
        for number in 0..inventories {
            let mut socket = listed(1, 5.0);
            socket.bytes_received = u64::from(bytes);
            socket.unread_bytes = bytes;
            socket.last_receive = secs(8.0);
            world.inventory(10.0 + f64::from(number), vec![socket]);
        }
    }

    /// Judges an encrypted connection with unread bytes after a request that may be answered.
    fn encrypted(answered: bool, bytes: u32, listens: bool) -> Vec<Verdict> {
        let mut world = World::new();
        world.open(1, 1.0);
        let state = if answered { WireState::Idle } else { WireState::Busy };
        world.request(1, 5.0, "cursor", state);
        world.set(1, |usage| {
            usage.wire.state = WireState::Unknown;
            usage.wire.listens = listens;
        });
        list_unread(&mut world, bytes, 5);
        judge(&world, 100.0)
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
            found[0].evidence.to_string(),
            "9000 bytes of results lie unread in 1 connection, silent for 92 s (threshold 60 s)"
        );
        assert_eq!(verdicts.len(), 1, "it awaits no response besides");
    }

    #[test]
    fn a_notice_to_an_idle_connection_is_no_result() {
        let world = with_unread(WireState::Idle, 5);
        let verdicts = judge(&world, 100.0);
        assert!(verdicts.iter().all(|verdict| verdict.severity == Severity::Info));
    }

    #[test]
    fn a_notice_to_an_encrypted_connection_is_no_result() {
        for (bytes, listens) in [(60, false), (900, false), (9000, true)] {
            let verdicts = encrypted(true, bytes, listens);
            assert!(verdicts.iter().all(|verdict| verdict.reason == Reason::Silent), "{bytes}");
        }
    }

    #[test]
    fn an_encrypted_result_lies_unread() {
        for (answered, bytes) in [(false, 60), (true, 9000)] {
            let verdicts = encrypted(answered, bytes, false);
            let found = find(&verdicts, Reason::UnreadResult);
            assert_eq!(found[0].severity, Severity::Leak, "{bytes}");
        }
    }

    #[test]
    fn a_notice_to_a_connection_never_used_under_trace_is_no_result() {
        let mut world = World::new();
        list_unread(&mut world, 60, 5);
        let verdicts = judge(&world, 100.0);
        assert_eq!(verdicts.len(), 1);
        assert_eq!(verdicts[0].reason, Reason::Silent);
    }
}
