//! A transaction that is never ended.

use std::fmt;

use crate::engine::detect::wording::Among;
use crate::engine::detect::{
    Detector, Evidence, Numbers, Reason, Severity, Silence, Verdict, View, plural,
};
use crate::engine::table::Connection;
use crate::model::{Timestamp, WireState};

/// Finds connections whose server last said "in transaction" or "failed transaction" and that have
/// been silent since. Pools take a connection back only after its transaction, which meanwhile
/// holds locks and keeps dead rows from being vacuumed.
pub(super) struct IdleInTransaction;

impl Detector for IdleInTransaction {
    fn reason(&self) -> Reason {
        Reason::IdleInTransaction
    }

    fn severity(&self) -> Severity {
        Severity::Leak
    }

    fn judge(&self, view: &View<'_>, now: Timestamp) -> Vec<Verdict> {
        let in_transaction = |connection: &&Connection| {
            matches!(connection.dialogue(), WireState::InTransaction | WireState::FailedTransaction)
        };
        let accused = view.silent_connections(now).filter(in_transaction);
        view.verdicts(self.reason(), accused, |members| {
            let is_failed = |one: &&&Connection| one.dialogue() == WireState::FailedTransaction;
            let is_unseen = |one: &&&Connection| one.wire.state == WireState::Unknown;
            let evidence = OpenTransactions {
                connections: members.len(),
                failed: members.iter().filter(is_failed).count(),
                told_by_server: members.iter().filter(is_unseen).count(),
                silence: view.silence(members, now),
            };
            (self.severity(), evidence)
        })
    }

    fn next_step(&self, _severity: Severity, place: &str) -> Option<String> {
        Some(format!(
            "is the transaction committed or rolled back {place}, on error paths and early returns \
             too? It holds locks and keeps vacuum from cleaning up"
        ))
    }
}

#[derive(Debug)]
struct OpenTransactions {
    connections: usize,
    /// How many transactions have failed.
    failed: usize,
    /// How many are known from the server's word alone.
    told_by_server: usize,
    silence: Silence,
}

impl Evidence for OpenTransactions {
    fn numbers(&self) -> Numbers {
        Numbers::of(self.connections)
            .count("failed", self.failed)
            .count("told_by_server", self.told_by_server)
            .silence(self.silence)
    }
}

/// "3 connections idle in transaction (1 failed), silent for 79-89 s (threshold 60 s)".
impl fmt::Display for OpenTransactions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections = plural(self.connections, "connection");
        let failed = Among(self.failed, "failed");
        let source = if self.told_by_server > 0 { " by the server's word" } else { "" };
        write!(f, "{connections} idle in transaction{failed}{source}, {}", self.silence)
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::detect::testing::{find, judge, judge_knowing};
    use crate::engine::detect::{Reason, Severity, StackOf};
    use crate::engine::senders::Senders;
    use crate::engine::testing::{APP, World, listed, server_lists, session};
    use crate::model::server::{Session, SessionState};
    use crate::model::{StackId, WireState};
    use leak_stacks::Frame;

    #[test]
    fn takes_the_servers_word_where_the_wire_is_encrypted() {
        let mut world = World::new();
        for id in 1..=3 {
            world.open(id, 1.0);
            world.request(id, 10.0, "pay", WireState::Unknown);
        }
        let states = [
            SessionState::IdleInTransaction,
            SessionState::IdleInTransactionAborted,
            SessionState::Idle,
        ];
        let word = (1..=3).zip(states).map(|(id, state)| session(id, 89.0, state));
        world.hear(90.0, server_lists(word.collect()));
        let verdicts = judge(&world, 100.0);
        let found = find(&verdicts, Reason::IdleInTransaction);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].severity, found[0].connections.len()), (Severity::Leak, 2));
        assert_eq!(
            found[0].evidence.to_string(),
            "2 connections idle in transaction (1 failed) by the server's word, silent for 89 s \
             (threshold 60 s)"
        );
        // What it said is of the silence before.
        world.request(1, 95.0, "pay", WireState::Unknown);
        world.request(2, 95.0, "pay", WireState::Unknown);
        assert!(find(&judge(&world, 200.0), Reason::IdleInTransaction).is_empty());
    }

    #[test]
    fn older_ones_are_of_the_code_that_sends_their_statement() {
        let mut world = World::new();
        world.inventory(15.0, (1..=5).map(|id| listed(id, 5.0)).collect());
        let statements = ["UPDATE a", "UPDATE a", "UPDATE b", "UPDATE c", "UPDATE d"];
        let word = (1..=5).zip(statements).map(|(id, statement)| Session {
            query: Some(statement.into()),
            ..session(id, 89.0, SessionState::IdleInTransaction)
        });
        world.hear(90.0, server_lists(word.collect()));
        let code = |function: &str| Frame {
            function: Some(function.into()),
            module: None,
            file: Some("store.go".into()),
            line: Some(7),
            address: 1,
        };
        let mut senders = Senders::default();
        senders.found(APP, "UPDATE a", &[code("pay")]);
        senders.found(APP, "UPDATE b", &[code("pay")]);
        senders.found(APP, "UPDATE c", &[code("pay"), code("refund")]);
        senders.found(APP, "UPDATE d", &[]);
        let verdicts = judge_knowing(&world, &senders, 100.0);
        let found = find(&verdicts, Reason::IdleInTransaction).into_iter().map(|verdict| {
            let functions = verdict.sender.as_ref().map(|sender| {
                sender.code.iter().filter_map(|frame| frame.function.as_deref()).collect()
            });
            (verdict.connections.len(), functions.unwrap_or_else(Vec::new))
        });
        let mut found: Vec<_> = found.collect();
        found.sort();
        assert_eq!(found, [(1, vec![]), (1, vec!["pay", "refund"]), (3, vec!["pay"])]);
    }

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
            (StackOf::LastUsedBy, &Some(StackId::from("pay")))
        );
        assert_eq!(
            verdict.evidence.to_string(),
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
