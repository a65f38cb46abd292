//! Silence, and nothing else.

use crate::engine::detect::evidence::plural;
use crate::engine::detect::{Detector, Reason, Severity, Verdict, View};
use crate::engine::table::Connection;
use crate::model::{Timestamp, WireState};

/// Lists silent connections against which there is no evidence: most of them lie idle in a pool. In
/// COPY the server waits for data, with a transaction open: that is unusual.
pub(super) struct Silent;

impl Detector for Silent {
    fn reason(&self) -> Reason {
        Reason::Silent
    }

    fn judge(&self, view: &View<'_>, now: Timestamp) -> Vec<Verdict> {
        let (copying, others): (Vec<_>, Vec<_>) = view
            .silent_connections(now)
            .partition(|connection| connection.wire.state == WireState::Copy);
        let mut verdicts = view.verdicts(self.reason(), copying, |members| {
            let connections = plural(members.len(), "connection");
            let evidence = format!("{connections}, COPY left open, {}", view.silence(members, now));
            (Severity::Suspect, evidence)
        });
        verdicts.extend(view.verdicts(self.reason(), others, |members| {
            let count = |is: fn(&Connection) -> bool, what: &str| {
                let count = members.iter().filter(|member| is(member)).count();
                (count > 0).then(|| format!(" ({count} {what})"))
            };
            let listening = count(|member| member.wire.listens, "listening for notifications");
            let replicating =
                count(|member| member.wire.state == WireState::Replication, "in replication");
            let notes: String = [listening, replicating].into_iter().flatten().collect();
            let connections = plural(members.len(), "connection");
            (Severity::Info, format!("{connections}{notes} {}", view.silence(members, now)))
        }));
        verdicts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::detect::testing::judge;
    use crate::engine::table::testing::World;

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
            verdicts[0].evidence,
            "1 connection, COPY left open, silent for 98 s (threshold 60 s)"
        );
        assert_eq!((verdicts[1].reason, verdicts[1].severity), (Reason::Silent, Severity::Info));
        assert_eq!(
            verdicts[1].evidence,
            "2 connections (1 listening for notifications) silent for 98 s (threshold 60 s)"
        );
    }
}
