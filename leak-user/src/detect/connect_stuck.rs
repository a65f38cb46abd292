//! A connection that does not come about.

use std::time::Duration;

use crate::detect::evidence::{plural, span};
use crate::detect::{Detector, Reason, Severity, Verdict, View};
use crate::event::{TcpState, Timestamp, WireState};
use crate::table::Connection;

/// A connect that takes this long is stuck, also where silence is allowed to be longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Finds connections without a handshake or without an answer to their startup message. The server
/// or the network may be to blame as well as the process.
pub(super) struct ConnectStuck;

impl Detector for ConnectStuck {
    fn reason(&self) -> Reason {
        Reason::ConnectStuck
    }

    fn judge(&self, view: &View<'_>, now: Timestamp) -> Vec<Verdict> {
        let patience = view.thresholds().silent_after.min(PATIENCE);
        let stuck = |connection: &&Connection| {
            connection.tcp_state == TcpState::SynSent || connection.wire.state == WireState::Startup
        };
        let accused =
            view.connections().filter(stuck).filter(|one| one.silent_for(now) >= patience);
        view.verdicts(self.reason(), accused, |members| {
            let dialing =
                members.iter().filter(|member| member.tcp_state == TcpState::SynSent).count();
            let what = match (dialing, members.len() - dialing) {
                (_, 0) => "no answer to the connect".to_owned(),
                (0, _) => "no answer to the startup message".to_owned(),
                (dialing, starting) => {
                    format!("no answer to the connect ({dialing}) or startup message ({starting})")
                }
            };
            let ages = span(members.iter().map(|member| member.silent_for(now)));
            let connections = plural(members.len(), "connection");
            (Severity::Suspect, format!("{connections} stuck for {ages}: {what}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::testing::judge;
    use crate::table::testing::World;

    #[test]
    fn finds_both_ways_to_be_stuck() {
        let mut world = World::new();
        world.dial(1, 1.0);
        world.dial(2, 1.0);
        world.establish(2, 1.1);
        world.request(2, 1.2, "", WireState::Startup);
        world.open(3, 1.0);
        assert!(judge(&world, 20.0).is_empty());
        let verdicts = judge(&world, 40.0);
        assert_eq!(verdicts.len(), 1);
        assert_eq!(verdicts[0].severity, Severity::Suspect);
        assert_eq!(
            verdicts[0].evidence,
            "2 connections stuck for 38-39 s: \
             no answer to the connect (1) or startup message (1)"
        );
    }
}
