//! A request that the server does not answer.

use std::fmt;

use crate::engine::detect::{
    Detector, Evidence, Numbers, Reason, RetractionWords, Severity, Silence, Verdict, View, plural,
};
use crate::model::Timestamp;

/// Finds connections with a request unanswered for long: a long report, or a lock. The program is
/// waiting, so this is no leak, but it is worth knowing why a connection is silent.
pub(super) struct AwaitingResponse;

impl Detector for AwaitingResponse {
    fn reason(&self) -> Reason {
        Reason::AwaitingResponse
    }

    fn severity(&self) -> Severity {
        Severity::Info
    }

    fn judge(&self, view: &View<'_>, now: Timestamp) -> Vec<Verdict> {
        let accused = view.silent_connections(now).filter(|connection| connection.is_busy());
        view.verdicts(self.reason(), accused, |members| {
            let silence = view.silence(members, now);
            (self.severity(), Unanswered { connections: members.len(), silence })
        })
    }

    fn next_step(&self, _severity: Severity, _place: &str) -> Option<String> {
        let step = "see in pg_stat_activity what the server is at: a long query, or a lock; \
                    statement_timeout bounds it";
        Some(step.to_owned())
    }

    fn retraction(&self) -> RetractionWords {
        RetractionWords { moved: "answered", ..RetractionWords::default() }
    }
}

#[derive(Debug)]
struct Unanswered {
    connections: usize,
    silence: Silence,
}

impl Evidence for Unanswered {
    fn numbers(&self) -> Numbers {
        Numbers::of(self.connections).silence(self.silence)
    }
}

/// "2 connections await their responses, silent for 291 s (threshold 60 s)".
impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.connections {
            1 => write!(f, "1 connection awaits its response")?,
            more => write!(f, "{} await their responses", plural(more, "connection"))?,
        }
        write!(f, ", {}", self.silence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::detect::testing::judge;
    use crate::engine::testing::World;
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
            found[0].evidence.to_string(),
            "2 connections await their responses, silent for 291 s (threshold 60 s)"
        );
    }
}
