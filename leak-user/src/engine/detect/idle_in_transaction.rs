//! A transaction that is never ended.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::engine::detect::blame::Blame;
use crate::engine::detect::wording::Among;
use crate::engine::detect::{
    Detector, Evidence, Numbers, Reason, Severity, Silence, Span, Verdict, View, duration, plural,
};
use crate::engine::table::Connection;
use crate::model::{StateSource, Timestamp, WireState};

/// Finds connections whose server last said "in transaction" or "failed transaction" and that have
/// been silent since. Pools take a connection back only after its transaction, which meanwhile
/// holds locks and keeps dead rows from being vacuumed.
///
/// Finds old transactions on connections that go on being used, too. Code that began one and lost
/// sight of it, as a request that is cancelled does, may have given its connection back, and others
/// use it without knowing. A long transaction is as old, but all its statements are of one caller:
/// it is worth knowing, and no more. Others are known by their threads where a caller has one, and
/// by calls that elsewhere in the pool leave the server outside of a transaction.
pub(super) struct IdleInTransaction;

impl Detector for IdleInTransaction {
    fn reason(&self) -> Reason {
        Reason::IdleInTransaction
    }

    fn severity(&self) -> Severity {
        Severity::Leak
    }

    fn judge(&self, view: &View<'_>, now: Timestamp) -> Vec<Verdict> {
        let mut verdicts = silent(view, now);
        verdicts.extend(old(view, now));
        verdicts
    }

    fn next_step(&self, _severity: Severity, place: &str) -> Option<String> {
        Some(format!(
            "commit or roll back {place}, on error paths and early returns too; until then the \
             transaction holds its locks and keeps vacuum from cleaning up"
        ))
    }
}

/// Silent connections. Those that are not silent for long enough to be lost are suspect; of code
/// that has lost others they are only counted.
fn silent(view: &View<'_>, now: Timestamp) -> Vec<Verdict> {
    let thresholds = view.thresholds();
    let suspect_after = thresholds.idle_in_transaction_after();
    let in_transaction: Vec<&Connection> = view
        .connections()
        .filter(|one| one.is_in_transaction() && one.silent_for(now) >= suspect_after)
        .collect();
    let blames = view.blame(Reason::IdleInTransaction, &in_transaction);
    let is_lost = |one: &Connection| one.silent_for(now) >= thresholds.silent_after;
    let (lost, young): (Vec<_>, Vec<_>) =
        in_transaction.into_iter().zip(blames).partition(|(one, _)| is_lost(one));
    let common = |(one, blame): &(&Connection, Blame)| {
        (one.process, one.endpoints.remote, blame.cause.clone())
    };
    let mut guilty: BTreeMap<_, usize> = lost.iter().map(|one| (common(one), 0)).collect();
    let mut suspect = Vec::new();
    for one in young {
        match guilty.get_mut(&common(&one)) {
            Some(younger) => *younger += 1,
            None => suspect.push(one),
        }
    }
    let causes: BTreeMap<_, _> = lost.iter().map(|one| (one.0.id, common(one))).collect();
    let reason = Reason::IdleInTransaction;
    let mut verdicts = view.verdicts_by(reason, lost, |members| {
        let common = members.first().and_then(|first| causes.get(&first.id));
        let younger = common.and_then(|common| guilty.get(common)).copied().unwrap_or_default();
        (Severity::Leak, OpenTransactions::new(members, younger, view.silence(members, now)))
    });
    verdicts.extend(view.verdicts_by(reason, suspect, |members| {
        let silence = Silence { threshold: suspect_after, ..view.silence(members, now) };
        (Severity::Suspect, OpenTransactions::new(members, 0, silence))
    }));
    verdicts
}

/// Connections in use whose transaction is old.
fn old(view: &View<'_>, now: Timestamp) -> Vec<Verdict> {
    let thresholds = view.thresholds();
    let (threshold, recently) = (thresholds.silent_after, thresholds.interval * 2);
    let idle_after = thresholds.idle_in_transaction_after();
    let age = |one: &Connection| one.transaction_age(now, recently);
    let is_old = |one: &&Connection| {
        one.silent_for(now) < idle_after && age(one).is_some_and(|age| age >= threshold)
    };
    let (inherited, long): (Vec<_>, Vec<_>) =
        view.connections().filter(is_old).partition(|one| heir(view, one).is_some());
    let ages = |members: &[&Connection]| members.iter().filter_map(|one| age(one)).collect();
    // Who uses it has not begun it.
    let inherited = inherited.into_iter().map(|one| (one, Blame::NOBODY));
    let mut verdicts = view.verdicts_by(Reason::IdleInTransaction, inherited, |members| {
        let heirs = members.first().and_then(|first| heir(view, first));
        let connections = members.len();
        (Severity::Leak, OldTransactions { connections, heirs, ages: ages(members), threshold })
    });
    verdicts.extend(view.verdicts(Reason::IdleInTransaction, long, |members| {
        let connections = members.len();
        let evidence = OldTransactions { connections, heirs: None, ages: ages(members), threshold };
        (Severity::Info, evidence)
    }));
    verdicts
}

/// What shows that others than the one who began a transaction use its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heir {
    /// Requests came from several threads.
    Threads,
    /// The same calls leave the server outside of a transaction on other connections.
    Calls,
}

fn heir(view: &View<'_>, connection: &Connection) -> Option<Heir> {
    if connection.wire.transaction_moved && view.has_thread_per_caller(connection) {
        return Some(Heir::Threads);
    }
    view.works_outside_transactions(connection).then_some(Heir::Calls)
}

#[derive(Debug)]
struct OldTransactions {
    connections: usize,
    /// Why it is not simply a long one.
    heirs: Option<Heir>,
    ages: Span,
    threshold: Duration,
}

impl Evidence for OldTransactions {
    fn numbers(&self) -> Numbers {
        Numbers::of(self.connections)
            .span("transaction_min_ms", "transaction_max_ms", self.ages)
            .time("threshold_ms", self.threshold)
    }

    fn next_step(&self) -> Option<&'static str> {
        Some(match self.heirs {
            Some(_) => {
                "find the code that begins a transaction and gives the connection back without \
                 ending it: requests that are cancelled or fail between BEGIN and COMMIT"
            }
            None => {
                "check that a transaction of this age is meant: it keeps vacuum from cleaning up"
            }
        })
    }
}

/// "3 connections go on being used in a transaction that is 79-120 s old (threshold 60 s), by
/// several threads".
impl fmt::Display for OldTransactions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections = plural(self.connections, "connection");
        let go = if self.connections == 1 { "goes" } else { "go" };
        let threshold = duration(self.threshold);
        write!(
            f,
            "{connections} {go} on being used in a transaction that is {} old (threshold \
             {threshold})",
            self.ages
        )?;
        f.write_str(match self.heirs {
            Some(Heir::Threads) => ", by several threads",
            Some(Heir::Calls) => ", by code that elsewhere works outside of transactions",
            None => "",
        })
    }
}

#[derive(Debug)]
struct OpenTransactions {
    connections: usize,
    /// How many transactions have failed.
    failed: usize,
    /// How many are known only because the server says so.
    told_by_server: usize,
    /// How many are known only because the driver says so.
    told_by_driver: usize,
    /// How many more the same code has left that are not silent for as long.
    younger: usize,
    silence: Silence,
}

impl OpenTransactions {
    fn new(members: &[&Connection], younger: usize, silence: Silence) -> Self {
        let is_failed = |one: &&&Connection| one.dialogue() == WireState::FailedTransaction;
        let told_by = |source| {
            let is_told = |one: &&&Connection| one.told().is_some_and(|(_, by)| by == source);
            members.iter().filter(is_told).count()
        };
        Self {
            connections: members.len(),
            failed: members.iter().filter(is_failed).count(),
            told_by_server: told_by(StateSource::Server),
            told_by_driver: told_by(StateSource::Driver),
            younger,
            silence,
        }
    }
}

impl Evidence for OpenTransactions {
    fn numbers(&self) -> Numbers {
        Numbers::of(self.connections)
            .count("failed", self.failed)
            .count("told_by_server", self.told_by_server)
            .some("told_by_driver", self.told_by_driver)
            .some("younger", self.younger)
            .silence(self.silence)
    }
}

/// "3 connections idle in transaction (1 failed), silent for 79-89 s (threshold 60 s)".
impl fmt::Display for OpenTransactions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections = plural(self.connections, "connection");
        let failed = Among(self.failed, "failed");
        let source = match (self.told_by_server, self.told_by_driver) {
            (0, 0) => "",
            (0, _) => ", as the driver says",
            (_, 0) => ", as the server says",
            (_, _) => ", as the server or the driver says",
        };
        write!(f, "{connections} idle in transaction{failed}{source}, {}", self.silence)?;
        match self.younger {
            0 => Ok(()),
            more => write!(f, "; {more} more not yet for so long"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::engine::detect::testing::{
        THRESHOLDS, find, judge, judge_knowing, judge_with, named_stacks,
    };
    use crate::engine::detect::{Reason, Severity, StackOf};
    use crate::engine::senders::Senders;
    use crate::engine::testing::{APP, World, listed, secs, server_lists, session};
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
            "2 connections idle in transaction (1 failed), as the server says, silent for 89 s \
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

    #[test]
    fn ten_seconds_are_suspect_and_of_known_code_only_counted() {
        let mut world = World::new();
        for number in 1..=3 {
            world.open(number, 1.0);
        }
        world.request(1, 80.0, "pay", WireState::InTransaction);
        let verdicts = judge(&world, 95.0);
        let found = find(&verdicts, Reason::IdleInTransaction);
        assert_eq!((found.len(), found[0].severity), (1, Severity::Suspect));
        assert_eq!(
            found[0].evidence.to_string(),
            "1 connection idle in transaction, silent for 14 s (threshold 10 s)"
        );
        assert!(find(&judge(&world, 85.0), Reason::IdleInTransaction).is_empty());
        world.request(2, 30.0, "pay", WireState::InTransaction);
        world.request(3, 80.0, "other", WireState::InTransaction);
        let verdicts = judge(&world, 95.0);
        let found = find(&verdicts, Reason::IdleInTransaction);
        let told: Vec<_> =
            found.iter().map(|one| (one.severity, one.evidence.to_string())).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told.contains(&(
            Severity::Leak,
            "1 connection idle in transaction, silent for 64 s (threshold 60 s); 1 more not yet \
             for so long"
                .to_owned()
        )));
    }

    /// A transaction is left open at second 20, and others use its connection until second 100.
    fn inherited(by: &str) -> World {
        let mut world = World::new();
        world.open(1, 1.0);
        world.open(2, 1.0);
        world.request(1, 20.0, "begin", WireState::InTransaction);
        world.set(1, |usage| usage.wire.transaction_at = Some(secs(20.0)));
        for second in 3..=10 {
            let at = 10.0 * f64::from(second);
            world.request(1, at, by, WireState::InTransaction);
            world.request(2, at, "show", WireState::Idle);
        }
        world
    }

    #[test]
    fn a_transaction_that_others_use_is_old_whoever_uses_it() {
        let stacks = named_stacks(&["show", "batch"]);
        let found_in = |world: &World| {
            let verdicts = judge_with(world, &stacks, &THRESHOLDS, 101.0);
            let found = find(&verdicts, Reason::IdleInTransaction);
            assert_eq!(found.len(), 1, "{found:?}");
            (found[0].severity, found[0].evidence.to_string(), found[0].culprit)
        };
        let (severity, evidence, culprit) = found_in(&inherited("show"));
        assert_eq!((severity, culprit), (Severity::Leak, None));
        assert_eq!(
            evidence,
            "1 connection goes on being used in a transaction that is 81 s old (threshold 60 s), \
             by code that elsewhere works outside of transactions"
        );
        // A long job, which one caller goes on with.
        let mut world = inherited("batch");
        assert_eq!(found_in(&world).0, Severity::Info);
        world.set(1, |usage| usage.wire.transaction_moved = true);
        let (severity, evidence, _) = found_in(&world);
        assert_eq!(severity, Severity::Leak);
        assert!(evidence.ends_with("by several threads"), "{evidence}");
    }

    #[test]
    fn the_servers_word_of_its_age_counts_while_it_is_new() {
        let mut world = World::new();
        world.open(1, 1.0);
        let told = Session {
            transaction_age: Some(Duration::from_secs(70)),
            ..session(1, 99.0, SessionState::Active)
        };
        world.hear(95.0, server_lists(vec![told]));
        world.request(1, 99.0, "batch", WireState::Unknown);
        let found = |at: f64| {
            let verdicts = judge(&world, at);
            find(&verdicts, Reason::IdleInTransaction).len()
        };
        assert_eq!((found(100.0), found(118.0)), (1, 0));
    }
}
