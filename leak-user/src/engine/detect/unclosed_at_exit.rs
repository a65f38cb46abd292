//! A connection that its process left open when it exited.

use std::fmt;

use crate::engine::detect::wording::Among;
use crate::engine::detect::{
    Detector, Evidence, Numbers, Reason, Severity, Span, Verdict, View, plural,
};
use crate::engine::table::Connection;
use crate::model::{Timestamp, WireState};

/// Finds connections that were closed by the kernel because the process that had opened them
/// exited or was killed. One that a child still holds is not closed.
///
/// Many healthy programs leave it to the kernel, so it is a suspicion; but a test that fails on a
/// leak is often over before any silence counts, and what it leaves open is all that there is to
/// see. What was proven to be lost before is not told twice.
pub(super) struct UnclosedAtExit;

impl Detector for UnclosedAtExit {
    fn reason(&self) -> Reason {
        Reason::UnclosedAtExit
    }

    fn severity(&self) -> Severity {
        Severity::Suspect
    }

    fn is_final(&self) -> bool {
        true
    }

    fn judge(&self, view: &View<'_>, now: Timestamp) -> Vec<Verdict> {
        let severity =
            if view.thresholds().fail_on_leak { Severity::Leak } else { self.severity() };
        let left = view.table().unclosed().iter().filter(|known| !view.is_accused(known));
        view.verdicts(self.reason(), left, |members| (severity, LeftOpen::new(members, now)))
    }

    fn next_step(&self, _severity: Severity, place: &str) -> Option<String> {
        Some(format!(
            "close each connection, or its pool, {place} before the program ends, on error paths \
             too; one that is still open may have been lost long before"
        ))
    }
}

#[derive(Debug)]
struct LeftOpen {
    connections: usize,
    in_transaction: usize,
    silence: Span,
}

impl LeftOpen {
    fn new(members: &[&Connection], now: Timestamp) -> Self {
        let in_transaction = |one: &&&Connection| {
            matches!(one.dialogue(), WireState::InTransaction | WireState::FailedTransaction)
        };
        // Its end changed its state: from then on it was no longer silent, but gone.
        let until = |one: &Connection| one.tcp.state_changed_at.min(now);
        Self {
            connections: members.len(),
            in_transaction: members.iter().filter(in_transaction).count(),
            silence: members.iter().map(|one| one.silent_for(until(one))).collect(),
        }
    }
}

impl Evidence for LeftOpen {
    fn numbers(&self) -> Numbers {
        Numbers::of(self.connections).count("in_transaction", self.in_transaction).span(
            "silent_min_ms",
            "silent_max_ms",
            self.silence,
        )
    }
}

/// "the process exited with 8 connections (2 in transaction) open, last used 0.5-6 s before".
impl fmt::Display for LeftOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections = plural(self.connections, "connection");
        let in_transaction = Among(self.in_transaction, "in transaction");
        write!(
            f,
            "the process exited with {connections}{in_transaction} open, last used {} before",
            self.silence
        )
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::detect::testing::{THRESHOLDS, find, judge, judge_again, judge_with};
    use crate::engine::detect::{PriorAccusations, Reason, Severity, Stacks};
    use crate::engine::testing::World;
    use crate::model::{ConnectionId, WireState};

    fn exited() -> World {
        let mut world = World::new();
        for number in 1..=4 {
            world.open(number, 1.0);
        }
        world.request(1, 2.0, "pay", WireState::InTransaction);
        world.request(2, 5.0, "pay", WireState::Idle);
        world.close(3, 6.0);
        world.exit_leaving(1, 7.0);
        world.exit_leaving(2, 7.0);
        world
    }

    #[test]
    fn what_an_exit_closes_is_suspect_and_in_a_test_a_leak() {
        let world = exited();
        let verdicts = judge(&world, 9.0);
        let found = find(&verdicts, Reason::UnclosedAtExit);
        assert_eq!((found.len(), found[0].severity), (1, Severity::Suspect));
        assert_eq!(found[0].connections, [ConnectionId(1), ConnectionId(2)]);
        assert_eq!(
            found[0].evidence.to_string(),
            "the process exited with 2 connections (1 in transaction) open, last used 1.9-4.9 s \
             before"
        );
        let mut thresholds = THRESHOLDS;
        thresholds.fail_on_leak = true;
        let verdicts = judge_with(&world, &Stacks::new(), &thresholds, 9.0);
        assert_eq!(find(&verdicts, Reason::UnclosedAtExit)[0].severity, Severity::Leak);
    }

    #[test]
    fn what_stands_accused_is_not_told_twice() {
        let world = exited();
        let since = crate::engine::testing::secs(5.001);
        let prior = PriorAccusations::from([((Reason::Abandoned, ConnectionId(2)), since)]);
        let verdicts = judge_again(&world, &Stacks::new(), &THRESHOLDS, &prior, 9.0);
        let found = find(&verdicts, Reason::UnclosedAtExit);
        assert_eq!(found[0].connections, [ConnectionId(1)]);
    }
}
