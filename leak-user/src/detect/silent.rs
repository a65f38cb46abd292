//! Silence, and nothing else.

use crate::detect::evidence::plural;
use crate::detect::{Detector, Reason, Severity, Verdict, View};
use crate::event::{Timestamp, WireState};
use crate::table::Connection;

/// Lists silent connections against which there is no evidence: most of them lie idle in a pool.
pub(super) struct Silent;

impl Detector for Silent {
    fn reason(&self) -> Reason {
        Reason::Silent
    }

    fn judge(&self, view: &View<'_>, now: Timestamp) -> Vec<Verdict> {
        view.verdicts(self.reason(), view.silent_connections(now), |members| {
            let count = |is: fn(&Connection) -> bool, what: &str| {
                let count = members.iter().filter(|member| is(member)).count();
                (count > 0).then(|| format!(" ({count} {what})"))
            };
            let listening = count(|member| member.wire.listens, "listening for notifications");
            let copying = count(|member| member.wire.state == WireState::Copy, "COPY left open");
            let replicating =
                count(|member| member.wire.state == WireState::Replication, "in replication");
            let notes: String = [listening, copying, replicating].into_iter().flatten().collect();
            let connections = plural(members.len(), "connection");
            (Severity::Info, format!("{connections}{notes} {}", view.silence(members, now)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::testing::judge;
    use crate::table::testing::World;

    #[test]
    fn tells_what_is_silent_by_nature() {
        let mut world = World::new();
        for number in 1..=3 {
            world.open(number, 1.0);
        }
        world.set(1, |usage| usage.wire.listens = true);
        world.set(2, |usage| usage.wire.state = WireState::Copy);
        let verdicts = judge(&world, 100.0);
        assert_eq!(verdicts.len(), 1);
        assert_eq!((verdicts[0].reason, verdicts[0].severity), (Reason::Silent, Severity::Info));
        assert_eq!(
            verdicts[0].evidence,
            "3 connections (1 listening for notifications) (1 COPY left open) \
             silent for 98 s (threshold 60 s)"
        );
    }
}
