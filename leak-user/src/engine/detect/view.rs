//! What detectors see.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use crate::engine::detect::{
    Reason, Severity, StackOf, Stacks, Standing, Thresholds, Verdict, code, evidence,
};
use crate::engine::table::{Connection, ConnectionTable, PoolKey, WentOn};
use crate::model::{ConnectionId, ProcessKey, StackId, Timestamp, WireState};

/// The table at one moment, without the connections that have been judged already.
#[derive(Debug)]
pub struct View<'a> {
    table: &'a ConnectionTable,
    stacks: &'a Stacks,
    thresholds: &'a Thresholds,
    standing: &'a Standing,
    /// Connections that belong to a thread, not to a pool.
    bound: HashSet<ConnectionId>,
    taken: HashSet<ConnectionId>,
}

/// What the connections of one verdict have in common.
type Group = (ProcessKey, SocketAddr, StackOf, Option<String>);

impl<'a> View<'a> {
    pub(super) fn new(
        table: &'a ConnectionTable,
        stacks: &'a Stacks,
        thresholds: &'a Thresholds,
        standing: &'a Standing,
    ) -> Self {
        let bound = bound_to_threads(table);
        Self { table, stacks, thresholds, standing, bound, taken: HashSet::new() }
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
            !connection.tcp_state.closed_by_process()
                && !connection.wire.cancels
                && !self.taken.contains(&connection.id)
        };
        self.table.connections().filter(judged)
    }

    /// The same by group.
    pub(super) fn groups(&self) -> HashMap<PoolKey, Vec<&'a Connection>> {
        let mut groups: HashMap<PoolKey, Vec<&Connection>> = HashMap::new();
        for connection in self.connections() {
            groups.entry(self.table.pool_of(connection).key).or_default().push(connection);
        }
        groups
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

    /// The connections that have been silent for long and that a healthy pool would use next.
    ///
    /// Not those that listen, nor those that belong to a thread, where most of the group do: such a
    /// thread opens one of its own whatever lies idle elsewhere.
    pub(super) fn idle_connections(&self, now: Timestamp) -> impl Iterator<Item = &'a Connection> {
        self.silent_connections(now).filter(|connection| {
            let is_free = connection.is_idle()
                || connection.wire.state == WireState::Copy
                || connection.is_answered_in_part();
            is_free && !connection.wire.listens && !self.bound.contains(&connection.id)
        })
    }

    /// Names the way through the application that led to `connection`'s latest request.
    pub(super) fn path(&self, connection: &Connection) -> Option<String> {
        connection.last_used_by.as_ref().and_then(|id| code::path(self.stacks, id))
    }

    /// Whether `connection`'s latest request came from the application, as far as its stack tells.
    pub(super) fn blames(&self, connection: &Connection) -> bool {
        connection.last_used_by.as_ref().is_some_and(|id| code::blames(self.stacks, id))
    }

    /// Uses of `connection`'s group after which the connection was given back, and the ways through the
    /// application that led to them: others followed on the same connection.
    ///
    /// Code that goes on using what it holds is not counted: uses that came the same way as the
    /// latest on the same connection, one soon after the other.
    pub(super) fn given_back(&self, connection: &Connection) -> Vec<(Timestamp, String)> {
        let pool = self.table.pool_of(connection);
        let given_back = |used: &WentOn| {
            // What a pool does by itself, to clean up what it got back, shows that it got it back.
            let path = code::path(self.stacks, &used.stack);
            let path = path.unwrap_or_else(|| used.stack.to_string());
            let is_held = || {
                let latest = self.table.get(used.id).and_then(|connection| self.path(connection));
                latest.as_ref() == Some(&path) && used.pause < self.grace()
            };
            (!is_held()).then_some((used.at, path))
        };
        pool.went_on().filter_map(given_back).collect()
    }

    /// The longest pause in `connection`'s group that ended although the group grew, after a use that
    /// came this way through the application, or that may have.
    pub(super) fn longest_pause(&self, connection: &Connection, path: Option<&str>) -> Duration {
        let may_be_after = |after: Option<&StackId>| {
            let after = after.and_then(|id| code::path(self.stacks, id));
            path.is_none() || after.is_none() || after.as_deref() == path
        };
        let pool = self.table.pool_of(connection);
        let pauses = pool.pauses().filter(|(after, _)| may_be_after(*after));
        pauses.map(|(_, pause)| pause).max().unwrap_or_default()
    }

    /// Names the code that a stack blames.
    pub(super) fn cause(&self, stack: Option<&StackId>) -> Option<String> {
        stack.and_then(|id| code::cause(self.stacks, id))
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

    /// How long a burst may take to open and use what it needs, also on a machine with much to do.
    #[must_use]
    pub fn burst(&self) -> Duration {
        const LEAST: Duration = Duration::from_secs(3);
        const MOST: Duration = Duration::from_secs(30);
        (self.thresholds.silent_after / 4).clamp(LEAST, MOST)
    }

    /// "silent for 41-63 s (threshold 60 s)".
    pub(super) fn silence(&self, connections: &[&Connection], now: Timestamp) -> String {
        let silences = connections.iter().map(|connection| connection.silent_for(now));
        let threshold = evidence::duration(self.thresholds.silent_after);
        format!("silent for {} (threshold {threshold})", evidence::span(silences))
    }

    /// Makes one verdict of the `accused` that have process, server and the code to blame in common;
    /// `say` gives its severity and evidence.
    pub(super) fn verdicts(
        &self,
        reason: Reason,
        accused: impl IntoIterator<Item = &'a Connection>,
        say: impl Fn(&[&'a Connection]) -> (Severity, String),
    ) -> Vec<Verdict> {
        let mut groups: BTreeMap<Group, Vec<&Connection>> = BTreeMap::new();
        for connection in accused {
            let (stack_of, stack) = shown_stack(connection);
            let cause = self.cause(stack.as_ref());
            // Where nobody is named, stacks tell nothing apart.
            let stack_of = if cause.is_some() { stack_of } else { StackOf::LastUsedBy };
            let group = (connection.process, connection.endpoints.remote, stack_of, cause);
            groups.entry(group).or_default().push(connection);
        }
        let verdict = |((process, remote, _, cause), mut members): (Group, Vec<_>)| {
            members.sort_unstable_by_key(|connection: &&Connection| connection.id);
            let (severity, evidence) = say(&members);
            let connections = members.iter().map(|connection| connection.id).collect();
            let (stack_of, stack) = commonest_stack(&members);
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
                cause,
            }
        };
        groups.into_iter().map(verdict).collect()
    }
}

/// The connections that belong to a thread, in groups most of whose connections do.
fn bound_to_threads(table: &ConnectionTable) -> HashSet<ConnectionId> {
    let mut groups: BTreeMap<PoolKey, Vec<ConnectionId>> = BTreeMap::new();
    for connection in table.connections().filter(|one| table.is_bound_to_thread(one)) {
        groups.entry(table.pool_of(connection).key).or_default().push(connection.id);
    }
    let is_most =
        |open: i64, bound: usize| i64::try_from(2 * bound).is_ok_and(|twice| twice > open);
    groups.retain(|key, bound| is_most(table.pool(key).open_now(), bound.len()));
    groups.into_values().flatten().collect()
}

/// The stack that most of `members` show.
pub(super) fn commonest_stack(members: &[&Connection]) -> (StackOf, Option<StackId>) {
    let mut counts: BTreeMap<(StackOf, StackId), usize> = BTreeMap::new();
    for member in members {
        if let (stack_of, Some(stack)) = shown_stack(member) {
            *counts.entry((stack_of, stack)).or_default() += 1;
        }
    }
    let commonest = counts.into_iter().max_by_key(|&(_, count)| count);
    commonest.map_or((StackOf::LastUsedBy, None), |((stack_of, stack), _)| (stack_of, Some(stack)))
}

/// The stack that names the culprit. Pools dial on helper threads and on behalf of innocent requests,
/// so the opener is shown only for a connection that was never used: where the last user is unknown,
/// nobody is named.
pub(super) fn shown_stack(connection: &Connection) -> (StackOf, Option<StackId>) {
    let unused = connection.requests == 0 || connection.wire.state == WireState::Startup;
    if unused {
        (StackOf::OpenedBy, connection.opened_by)
    } else {
        (StackOf::LastUsedBy, connection.last_used_by)
    }
}
