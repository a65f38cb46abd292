//! Silence without other evidence.

use std::fmt;

use crate::engine::detect::wording::Among;
use crate::engine::detect::{
    Detector, Evidence, Numbers, Reason, Severity, Silence, Verdict, View, plural,
};
use crate::engine::table::Connection;
use crate::model::{Timestamp, WireState};

/// Lists silent connections without evidence against them: most are idle in a pool. In COPY the
/// server waits for data with a transaction open, which is unusual.
pub(super) struct Silent;

impl Detector for Silent {
    fn reason(&self) -> Reason {
        Reason::Silent
    }

    fn severity(&self) -> Severity {
        Severity::Info
    }

    fn judge(&self, view: &View<'_>, now: Timestamp) -> Vec<Verdict> {
        let (copying, others): (Vec<_>, Vec<_>) = view
            .silent_connections(now)
            .partition(|connection| connection.wire.state == WireState::Copy);
        let mut verdicts = view.verdicts(self.reason(), copying, |members| {
            let silence = view.silence(members, now);
            (Severity::Suspect, CopyLeftOpen { connections: members.len(), silence })
        });
        let others = others.into_iter().chain(view.silent_in_pools(now));
        verdicts.extend(view.verdicts(self.reason(), others, |members| {
            let count =
                |is: fn(&Connection) -> bool| members.iter().filter(|member| is(member)).count();
            let resting = members.iter().filter(|member| view.is_resting(member)).count();
            let evidence = NothingElse {
                connections: members.len(),
                resting,
                listening: count(|member| member.wire.listens),
                replicating: count(|member| member.wire.state == WireState::Replication),
                silence: view.silence(members, now),
            };
            (self.severity(), evidence)
        }));
        verdicts
    }

    fn next_step(&self, severity: Severity, place: &str) -> Option<String> {
        let copies = severity > self.severity();
        let step = || {
            format!(
                "end COPY {place}, on error paths too; until then the server waits, in a \
                 transaction"
            )
        };
        copies.then(step)
    }
}

#[derive(Debug)]
struct CopyLeftOpen {
    connections: usize,
    silence: Silence,
}

impl Evidence for CopyLeftOpen {
    fn numbers(&self) -> Numbers {
        Numbers::of(self.connections).silence(self.silence)
    }
}

/// "1 connection, COPY left open, silent for 98 s (threshold 60 s)".
impl fmt::Display for CopyLeftOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, COPY left open, {}", plural(self.connections, "connection"), self.silence)
    }
}

#[derive(Debug)]
struct NothingElse {
    connections: usize,
    /// Connections that are in their pool, by its own word.
    resting: usize,
    listening: usize,
    replicating: usize,
    silence: Silence,
}

impl Evidence for NothingElse {
    fn numbers(&self) -> Numbers {
        Numbers::of(self.connections)
            .count("in_pool", self.resting)
            .count("listening", self.listening)
            .count("replicating", self.replicating)
            .silence(self.silence)
    }
}

/// "2 connections (1 listening for notifications) silent for 98 s (threshold 60 s)".
impl fmt::Display for NothingElse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections = plural(self.connections, "connection");
        let resting = Among(self.resting, "in their pool");
        let listening = Among(self.listening, "listening for notifications");
        let replicating = Among(self.replicating, "in replication");
        write!(f, "{connections}{resting}{listening}{replicating} {}", self.silence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::detect::testing::judge;
    use crate::engine::testing::World;

    #[test]
    fn tells_what_is_silent_by_nature() {
        let mut world = World::new();
        for number in 1..=3 {
            world.open(number, 1.0);
        }
        world.set(1, |usage| usage.wire.listens = true);
        world.set(2, |usage| usage.wire.state = WireState::Copy);
        let verdicts = judge(&world, 100.0);
        assert_eq!(verdicts.len(), 2);
        assert_eq!((verdicts[0].reason, verdicts[0].severity), (Reason::Silent, Severity::Suspect));
        assert_eq!(
            verdicts[0].evidence.to_string(),
            "1 connection, COPY left open, silent for 98 s (threshold 60 s)"
        );
        assert_eq!((verdicts[1].reason, verdicts[1].severity), (Reason::Silent, Severity::Info));
        assert_eq!(
            verdicts[1].evidence.to_string(),
            "2 connections (1 listening for notifications) silent for 98 s (threshold 60 s)"
        );
    }
}
