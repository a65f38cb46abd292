//! A connection that does not come about.

use std::time::Duration;

use crate::engine::detect::evidence::{plural, span};
use crate::engine::detect::{Detector, Reason, Severity, Verdict, View};
use crate::engine::table::Connection;
use crate::model::{TcpState, Timestamp, WireState};

/// A connect that takes this long is stuck, also where silence is allowed to be longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Finds connections without a handshake, without a startup message or without an answer to it. The
/// server or the network may be to blame as well as the process.
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
            let what = stages(members);
            let ages = span(members.iter().map(|member| member.silent_for(now)));
            let connections = plural(members.len(), "connection");
            (Severity::Suspect, format!("{connections} stuck for {ages}: {what}"))
        })
    }
}

/// How far the connections have got: "no answer to the connect", or with counts when some have got
/// further than others.
fn stages(members: &[&Connection]) -> String {
    let (mut dialing, mut starting, mut mute) = (0, 0, 0);
    for member in members {
        *(match (member.tcp_state, member.requests) {
            (TcpState::SynSent, _) => &mut dialing,
            (_, 0) => &mut mute,
            _ => &mut starting,
        }) += 1;
    }
    let stages = [
        (dialing, "no answer to the connect"),
        (starting, "no answer to the startup message"),
        (mute, "nothing sent after the connect"),
    ];
    let reached = stages.into_iter().filter(|&(count, _)| count > 0);
    let say = |(count, what): (usize, &str)| {
        if count == members.len() { what.to_owned() } else { format!("{what} ({count})") }
    };
    reached.map(say).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::detect::testing::judge;
    use crate::engine::table::testing::World;

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
             no answer to the connect (1), no answer to the startup message (1)"
        );
    }

    #[test]
    fn who_has_sent_nothing_awaits_no_answer() {
        let mut world = World::new();
        world.dial(1, 1.0);
        world.establish(1, 1.1);
        world.set(1, |usage| usage.wire.state = WireState::Startup);
        assert_eq!(
            judge(&world, 40.0)[0].evidence,
            "1 connection stuck for 38 s: nothing sent after the connect"
        );
    }
}
