//! A request that the server does not answer.

use crate::engine::detect::evidence::plural;
use crate::engine::detect::{Detector, Reason, Severity, Verdict, View};
use crate::model::Timestamp;

/// Finds connections with a request unanswered for long: a long report, or a lock. The program is
/// waiting, so this is no leak, but it is worth knowing why a connection is silent.
pub(super) struct AwaitingResponse;

impl Detector for AwaitingResponse {
    fn reason(&self) -> Reason {
        Reason::AwaitingResponse
    }

    fn judge(&self, view: &View<'_>, now: Timestamp) -> Vec<Verdict> {
        let accused = view.silent_connections(now).filter(|connection| connection.is_busy());
        view.verdicts(self.reason(), accused, |members| {
            let who = match members.len() {
                1 => "1 connection awaits its response".to_owned(),
                more => format!("{} await their responses", plural(more, "connection")),
            };
            (Severity::Info, format!("{who}, {}", view.silence(members, now)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::detect::testing::judge;
    use crate::engine::table::testing::World;
    use crate::model::{ConnectionId, WireState};

    #[test]
    fn a_long_report_is_no_leak() {
        let mut world = World::new();
        world.open(1, 1.0);
        world.request(1, 10.0, "report", WireState::Busy);
        // Encrypted, so only the direction of the last bytes tells.
        world.open(2, 1.0);
        world.request(2, 10.0, "report", WireState::Busy);
        world.set(2, |usage| usage.wire.state = WireState::Unknown);
        // The pool grows meanwhile.
        for number in 10..30 {
            world.open(number, 10.0 * number as f64);
        }
        let verdicts = judge(&world, 301.0);
        let found: Vec<_> =
            verdicts.iter().filter(|v| v.connections.contains(&ConnectionId(1))).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].reason, found[0].severity),
            (Reason::AwaitingResponse, Severity::Info)
        );
        assert_eq!(found[0].connections.len(), 2);
        assert_eq!(
            found[0].evidence,
            "2 connections await their responses, silent for 291 s (threshold 60 s)"
        );
    }
}
