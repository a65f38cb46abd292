//! What detectors see.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use crate::detect::{Reason, Severity, StackOf, Standing, Thresholds, Verdict, evidence};
use crate::event::{ConnectionId, ProcessKey, StackId, Timestamp, WireState};
use crate::table::{Connection, ConnectionTable};

/// The table at one moment, without the connections that have been judged already.
#[derive(Debug)]
pub struct View<'a> {
    table: &'a ConnectionTable,
    thresholds: &'a Thresholds,
    standing: &'a Standing,
    taken: HashSet<ConnectionId>,
}

/// What the connections of one verdict have in common.
type Group = (ProcessKey, SocketAddr, StackOf, Option<StackId>);

impl<'a> View<'a> {
    pub(super) fn new(
        table: &'a ConnectionTable,
        thresholds: &'a Thresholds,
        standing: &'a Standing,
    ) -> Self {
        Self { table, thresholds, standing, taken: HashSet::new() }
    }

    /// Leaves connections out from now on: they are judged.
    pub(super) fn take(&mut self, connections: impl IntoIterator<Item = ConnectionId>) {
        self.taken.extend(connections);
    }

    /// The whole table.
    #[must_use]
    pub fn table(&self) -> &'a ConnectionTable {
        self.table
    }

    /// From when on things count.
    #[must_use]
    pub fn thresholds(&self) -> &'a Thresholds {
        self.thresholds
    }

    /// The connections that can be judged: their process has not closed its end, and no surer
    /// evidence has taken them.
    pub fn connections(&self) -> impl Iterator<Item = &'a Connection> {
        let judged = |connection: &&Connection| {
            !connection.tcp_state.closed_by_process() && !self.taken.contains(&connection.id)
        };
        self.table.connections().filter(judged)
    }

    /// Those of [`Self::connections`] that have been silent for long.
    pub fn silent_connections(&self, now: Timestamp) -> impl Iterator<Item = &'a Connection> {
        let silent_after = self.thresholds.silent_after;
        self.connections().filter(move |connection| connection.silent_for(now) >= silent_after)
    }

    /// Whether `connection` stands accused of being abandoned and was not used since.
    #[must_use]
    pub fn stands_accused(&self, connection: &Connection) -> bool {
        self.standing.get(&connection.id).is_some_and(|&since| since == connection.silent_since())
    }

    /// Net growth of `connection`'s group since it fell silent, not counting what the group opened
    /// in the first moments after.
    ///
    /// Pools fill up and replace in bursts, so what is opened right after a use says nothing yet.
    #[must_use]
    pub fn lasting_growth(&self, connection: &Connection) -> i64 {
        let from = connection.silent_since().after(self.grace());
        self.table.pool_of(connection).growth_since(from)
    }

    /// How long what a group opens after a connection's last use is put down to the same burst.
    #[must_use]
    pub fn grace(&self) -> Duration {
        const LEAST: Duration = Duration::from_secs(1);
        const MOST: Duration = Duration::from_secs(10);
        (self.thresholds.silent_after / 8).clamp(LEAST, MOST)
    }

    /// "silent for 41-63 s (threshold 60 s)".
    pub(super) fn silence(&self, connections: &[&Connection], now: Timestamp) -> String {
        let silences = connections.iter().map(|connection| connection.silent_for(now));
        let threshold = evidence::duration(self.thresholds.silent_after);
        format!("silent for {} (threshold {threshold})", evidence::span(silences))
    }

    /// Makes one verdict of the `accused` that have process, server and stack in common; `say`
    /// gives its severity and evidence.
    pub(super) fn verdicts(
        &self,
        reason: Reason,
        accused: impl IntoIterator<Item = &'a Connection>,
        say: impl Fn(&[&'a Connection]) -> (Severity, String),
    ) -> Vec<Verdict> {
        let mut groups: BTreeMap<Group, Vec<&Connection>> = BTreeMap::new();
        for connection in accused {
            groups.entry(group_of(connection)).or_default().push(connection);
        }
        let verdict = |((process, remote, stack_of, stack), mut members): (Group, Vec<_>)| {
            members.sort_unstable_by_key(|connection: &&Connection| connection.id);
            let (severity, evidence) = say(&members);
            let connections = members.iter().map(|connection| connection.id).collect();
            let pool = None;
            Verdict {
                reason,
                severity,
                process,
                remote,
                pool,
                connections,
                evidence,
                stack_of,
                stack,
            }
        };
        groups.into_iter().map(verdict).collect()
    }
}

fn group_of(connection: &Connection) -> Group {
    let (stack_of, stack) = shown_stack(connection);
    (connection.process, connection.endpoints.remote, stack_of, stack)
}

/// The stack that names the culprit. Pools dial on helper threads and on behalf of innocent requests,
/// so the opener is shown only for a connection that was never used: where the last user is unknown,
/// nobody is named.
pub(super) fn shown_stack(connection: &Connection) -> (StackOf, Option<StackId>) {
    let unused = connection.requests == 0 || connection.wire.state == WireState::Startup;
    if unused {
        (StackOf::OpenedBy, connection.opened_by.clone())
    } else {
        (StackOf::LastUsedBy, connection.last_used_by.clone())
    }
}
