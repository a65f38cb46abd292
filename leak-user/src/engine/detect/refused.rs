//! A server that has no slot left.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::engine::detect::no_slot_left::{Holder, NoSlotLeft};
use crate::engine::detect::view::{commonest_stack, shown_stack};
use crate::engine::detect::{
    Detector, Evidence, Numbers, Reason, RetractionWords, Scope, Severity, StackOf, Verdict, View,
    plural,
};
use crate::engine::fate::Fate;
use crate::engine::table::{Connection, Refusals};
use crate::model::{ProcessKey, Timestamp, WireState};

/// Most groups of connections that are told apart.
const MAX_HOLDERS: usize = 64;

/// Finds servers that have refused connections because the server, the role or the database has too
/// many. The refused program is the victim, so the verdict lists who holds the slots, by code:
/// silent or not, because what is held need not be leaked.
pub(super) struct Refused;

impl Detector for Refused {
    fn reason(&self) -> Reason {
        Reason::Refused
    }

    fn severity(&self) -> Severity {
        Severity::Suspect
    }

    fn scope(&self) -> Scope {
        Scope::Server
    }

    fn judge(&self, view: &View<'_>, now: Timestamp) -> Vec<Verdict> {
        let refusing = view.table().refusals();
        refusing.map(|(server, refusals)| verdict(view, server, refusals, now)).collect()
    }

    fn next_step(&self, _severity: Severity, _place: &str) -> Option<String> {
        let step = "give back what is held without need, before a limit is raised: max_connections, \
                    or CONNECTION LIMIT of the role or the database, as the server's message says";
        Some(step.to_owned())
    }

    fn retraction(&self) -> RetractionWords {
        RetractionWords { over: "refused no more", ..RetractionWords::default() }
    }
}

fn verdict(view: &View<'_>, server: SocketAddr, refusals: &Refusals, now: Timestamp) -> Verdict {
    let mut groups: BTreeMap<_, Vec<&Connection>> = BTreeMap::new();
    let mut connections = Vec::new();
    for connection in view.table().connections().filter(|known| holds_slot(known, server)) {
        let (stack_of, stack) = shown_stack(connection);
        let common = (connection.process, stack_of, view.cause(stack.as_ref()));
        groups.entry(common).or_default().push(connection);
        connections.push(connection.id);
    }
    let mut holders: Vec<Holder> = groups
        .into_iter()
        .map(|((process, ..), members)| holder(view, process, &members, now))
        .collect();
    holders.sort_by_key(|holder| std::cmp::Reverse(holder.count));
    holders.truncate(MAX_HOLDERS);
    let mut said: Vec<_> = refusals.said.iter().collect();
    said.sort_by_key(|&(_, &count)| std::cmp::Reverse(count));
    Verdict {
        reason: Reason::Refused,
        severity: Severity::Suspect,
        process: refusals.first,
        remote: server,
        pool: None,
        connections,
        evidence: Arc::new(NoSlotLeft {
            refused: refusals.count,
            processes: refusals.by_process.len(),
            latest: now.since(refusals.latest_at),
            said: said.into_iter().map(|(text, _)| text.clone()).collect(),
            holders,
        }),
        stack_of: StackOf::LastUsedBy,
        stack: None,
        cause: None,
        culprit: None,
        culprit_uses: None,
        sender: None,
        fate: Fate::Unknown,
    }
}

/// Whether `connection` takes one of the server's slots.
fn holds_slot(connection: &Connection, server: SocketAddr) -> bool {
    connection.endpoints.remote == server
        && connection.tcp.established_at.is_some()
        && !connection.tcp.state.closed_by_process()
        && !connection.tcp.state.ended_by_server()
        && !connection.wire.cancels
        && connection.wire.refused.is_none()
}

fn holder(view: &View<'_>, process: ProcessKey, members: &[&Connection], now: Timestamp) -> Holder {
    let silent_after = view.thresholds().silent_after;
    let count = |is: &dyn Fn(&Connection) -> bool| members.iter().filter(|one| is(one)).count();
    let (stack_of, stack) = commonest_stack(members);
    Holder {
        process,
        stack_of,
        stack,
        culprit: view.culprit(stack_of, stack.as_ref()),
        count: members.len(),
        silent: count(&|one| one.silent_for(now) >= silent_after),
        busy: count(&Connection::is_busy),
        in_transaction: count(&|one| {
            matches!(one.dialogue(), WireState::InTransaction | WireState::FailedTransaction)
        }),
    }
}

impl Evidence for NoSlotLeft {
    fn numbers(&self) -> Numbers {
        let held: usize = self.holders.iter().map(|holder| holder.count).sum();
        Numbers::default()
            .count("refused", self.refused)
            .count("processes_refused", self.processes)
            .count("held", held)
            .time("latest_refusal_ms", self.latest)
    }

    fn no_slot_left(&self) -> Option<&NoSlotLeft> {
        Some(self)
    }
}

/// "the server refused 11 connections: sorry, too many clients already".
impl fmt::Display for NoSlotLeft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refused = plural(usize::try_from(self.refused).unwrap_or(usize::MAX), "connection");
        write!(f, "the server refused {refused}")?;
        if self.processes > 1 {
            write!(f, " of {} processes", self.processes)?;
        }
        if self.said.is_empty() {
            return f.write_str(": too many clients (53300)");
        }
        write!(f, ": {}", self.said.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::detect::testing::{find, judge};
    use crate::engine::detect::{Reason, Severity};
    use crate::engine::testing::World;
    use crate::model::WireState;

    /// Four connections of two functions, and two that the server refused.
    fn full() -> World {
        let mut world = World::new();
        for number in 1..=4 {
            world.open(number, 1.0);
            let (by, state) = match number {
                4 => ("report", WireState::Busy),
                _ => ("pay", WireState::InTransaction),
            };
            world.request(number, 10.0 * number as f64, by, state);
        }
        for number in [8, 9] {
            world.refuse(number, 50.0 + number as f64, "too many connections for role \"shop\"");
        }
        world
    }

    #[test]
    fn tells_who_holds_the_slots_in_the_servers_words() {
        let verdicts = judge(&full(), 75.0);
        let found = find(&verdicts, Reason::Refused);
        assert_eq!((found.len(), found[0].severity), (1, Severity::Suspect));
        assert_eq!(found[0].connections.len(), 4);
        assert_eq!(
            found[0].evidence.to_string(),
            "the server refused 2 connections: too many connections for role \"shop\""
        );
        let holders = &found[0].evidence.no_slot_left().unwrap().holders;
        let counts: Vec<_> = holders
            .iter()
            .map(|one| (one.count, one.silent, one.busy, one.in_transaction))
            .collect();
        assert_eq!(counts, [(3, 1, 0, 3), (1, 0, 1, 0)]);
        let other = find(&verdicts, Reason::IdleInTransaction);
        assert!(!other.is_empty(), "they are judged besides");
    }

    #[test]
    fn is_over_when_nothing_was_refused_for_minutes() {
        let mut world = full();
        world.inventory(300.0, Vec::new());
        assert_eq!(find(&judge(&world, 300.0), Reason::Refused).len(), 1);
        world.inventory(400.0, Vec::new());
        assert!(find(&judge(&world, 400.0), Reason::Refused).is_empty());
    }

    #[test]
    fn another_refusal_says_nothing_of_slots() {
        let mut world = World::new();
        world.dial(1, 1.0);
        world.establish(1, 1.1);
        world.set(1, |usage| usage.wire.refused = Some("28P01".into()));
        assert!(find(&judge(&world, 10.0), Reason::Refused).is_empty());
    }
}
