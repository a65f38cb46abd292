//! A transaction that nobody ends.

use crate::detect::evidence::plural;
use crate::detect::{Detector, Reason, Severity, Verdict, View};
use crate::event::{Timestamp, WireState};
use crate::table::Connection;

/// Finds connections whose server last said "in transaction" or "failed transaction" and that have
/// been silent since. Pools take a connection back only when its transaction is over, and while it
/// is open it holds locks and keeps dead rows alive.
pub(super) struct IdleInTransaction;

impl Detector for IdleInTransaction {
    fn reason(&self) -> Reason {
        Reason::IdleInTransaction
    }

    fn judge(&self, view: &View<'_>, now: Timestamp) -> Vec<Verdict> {
        let in_transaction = |connection: &&Connection| {
            matches!(connection.dialogue(), WireState::InTransaction | WireState::FailedTransaction)
        };
        let accused = view.silent_connections(now).filter(in_transaction);
        view.verdicts(self.reason(), accused, |members| {
            let failed = members
                .iter()
                .filter(|connection| connection.dialogue() == WireState::FailedTransaction)
                .count();
            let failed = if failed > 0 { format!(" ({failed} failed)") } else { String::new() };
            let unseen =
                members.iter().any(|connection| connection.wire.state == WireState::Unknown);
            let source = if unseen { " by the server's word" } else { "" };
            let count = plural(members.len(), "connection");
            let silence = view.silence(members, now);
            (Severity::Leak, format!("{count} idle in transaction{failed}{source}, {silence}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::detect::testing::{find, judge};
    use crate::detect::{Reason, Severity, StackOf};
    use crate::event::{StackId, WireState};
    use crate::table::testing::World;

    #[test]
    fn says_for_how_long() {
        let mut world = World::new();
        for number in 0..3 {
            world.open(number, 1.0);
            world.request(number, 10.0 + number as f64, "pay", WireState::InTransaction);
        }
        world.request(2, 20.0, "pay", WireState::FailedTransaction);
        let verdicts = judge(&world, 100.0);
        assert_eq!(verdicts.len(), 1);
        let verdict = &verdicts[0];
        assert_eq!(verdict.reason, Reason::IdleInTransaction);
        assert_eq!(verdict.severity, Severity::Leak);
        assert_eq!(verdict.connections.len(), 3);
        assert_eq!(
            (verdict.stack_of, &verdict.stack),
            (StackOf::LastUsedBy, &Some(StackId("pay".into())))
        );
        assert_eq!(
            verdict.evidence,
            "3 connections idle in transaction (1 failed), silent for 79-89 s (threshold 60 s)"
        );
    }

    #[test]
    fn a_transaction_at_work_is_none() {
        let mut world = World::new();
        world.open(1, 1.0);
        for second in 0..20 {
            world.request(1, 5.0 * f64::from(second), "long", WireState::InTransaction);
        }
        assert!(find(&judge(&world, 100.0), Reason::IdleInTransaction).is_empty());
    }
}
