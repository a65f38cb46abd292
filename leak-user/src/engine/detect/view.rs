//! What detectors see.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::detect::code::{CodePath, CodeReader};
use crate::engine::detect::memory::{ReusedAfter, Rhythm, burst_of};
use crate::engine::detect::{
    CodeKey, Evidence, Memory, Reason, Severity, Silence, StackOf, Stacks, Thresholds, Verdict,
};
use crate::engine::table::{Connection, ConnectionTable, Pool, PoolKey};
use crate::model::{ConnectionId, ProcessKey, StackId, TcpState, Timestamp, WireState};

/// Accusations of severity leak, each with the moment since when the connection was silent.
pub type PriorAccusations = HashMap<(Reason, ConnectionId), Timestamp>;

/// The table at one moment, without connections that have been judged.
#[derive(Debug)]
pub struct View<'a> {
    table: &'a ConnectionTable,
    memory: &'a Memory,
    code: CodeReader<'a>,
    thresholds: &'a Thresholds,
    prior: &'a PriorAccusations,
    /// Connections that belong to a thread rather than a pool.
    bound: HashSet<ConnectionId>,
    taken: HashSet<ConnectionId>,
    /// Connections that are in their pool, by its own word.
    resting: HashSet<ConnectionId>,
}

/// What the connections of one verdict have in common.
type Common = (ProcessKey, SocketAddr, StackOf, Option<CodeKey>);

impl<'a> View<'a> {
    /// A view of everything in the table.
    #[must_use]
    pub fn new(
        table: &'a ConnectionTable,
        memory: &'a Memory,
        stacks: &'a Stacks,
        thresholds: &'a Thresholds,
        prior: &'a PriorAccusations,
    ) -> Self {
        let bound = bound_to_threads(table, memory);
        let code = CodeReader::new(stacks);
        Self {
            table,
            memory,
            code,
            thresholds,
            prior,
            bound,
            taken: HashSet::new(),
            resting: HashSet::new(),
        }
    }

    /// Leaves out connections that their pool has just been read to hold: nobody has lost them.
    pub(super) fn leave_resting(&mut self, now: Timestamp) {
        let since = self.thresholds.recently(now);
        let is_resting = |connection: &&Connection| {
            connection.place_now(since).is_some_and(|place| !place.checked_out)
        };
        let resting = self.table.connections().filter(is_resting);
        self.resting = resting.map(|connection| connection.id).collect();
    }

    /// Whether [`Self::leave_resting`] has left `connection` out.
    pub(super) fn is_resting(&self, connection: &Connection) -> bool {
        self.resting.contains(&connection.id)
    }

    /// Whether its pool's own word is that somebody has taken `connection` and not given it back.
    pub(super) fn is_checked_out(&self, connection: &Connection, now: Timestamp) -> bool {
        let place = connection.place_now(self.thresholds.recently(now));
        place.is_some_and(|place| place.checked_out)
    }

    /// The connections that [`Self::leave_resting`] has left out and that have been silent for
    /// long.
    pub(super) fn silent_in_pools(&self, now: Timestamp) -> impl Iterator<Item = &'a Connection> {
        let silent_after = self.thresholds.silent_after;
        self.table.connections().filter(move |connection| {
            self.resting.contains(&connection.id) && connection.silent_for(now) >= silent_after
        })
    }

    /// Leaves out connections from now on, because they have been judged.
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

    /// The connections to judge: not closed by their process, nor in their pool, nor taken on surer
    /// evidence.
    pub fn connections(&self) -> impl Iterator<Item = &'a Connection> {
        let judged = |connection: &&Connection| {
            !connection.tcp.state.closed_by_process()
                && !connection.wire.cancels
                && !self.taken.contains(&connection.id)
                && !self.resting.contains(&connection.id)
        };
        self.table.connections().filter(judged)
    }

    /// The connections to judge, by pool.
    pub(super) fn by_pool(&self) -> HashMap<PoolKey, Vec<&'a Connection>> {
        let mut pools: HashMap<PoolKey, Vec<&Connection>> = HashMap::new();
        for connection in self.connections() {
            pools.entry(self.table.pool_of(connection).key).or_default().push(connection);
        }
        pools
    }

    /// Those of [`Self::connections`] that have been silent for long.
    pub fn silent_connections(&self, now: Timestamp) -> impl Iterator<Item = &'a Connection> {
        let silent_after = self.thresholds.silent_after;
        self.connections().filter(move |connection| connection.silent_for(now) >= silent_after)
    }

    /// How long `connections` have been silent, and the threshold for it.
    pub(super) fn silence(&self, connections: &[&Connection], now: Timestamp) -> Silence {
        Silence {
            lasted: connections.iter().map(|connection| connection.silent_for(now)).collect(),
            threshold: self.thresholds.silent_after,
        }
    }

    /// Whether `connection` stands accused of `reason` with severity leak and was not used since.
    ///
    /// What a pool did after it lost a connection stays true when the pool shrinks again.
    #[must_use]
    pub fn stands_accused(&self, reason: Reason, connection: &Connection) -> bool {
        let since = self.prior.get(&(reason, connection.id));
        since.is_some_and(|&since| since == connection.silent_since())
    }

    /// The connections that have been silent for long and that a healthy pool would use next.
    ///
    /// Not those that listen. Not those that belong to a thread either, in pools where most do:
    /// such a thread opens a connection of its own whatever is idle elsewhere.
    pub(super) fn idle_connections(&self, now: Timestamp) -> impl Iterator<Item = &'a Connection> {
        self.silent_connections(now).filter(|connection| {
            let is_free = connection.is_idle()
                || connection.wire.state == WireState::Copy
                || is_answered_in_part(connection);
            is_free && !connection.wire.listens && !self.bound.contains(&connection.id)
        })
    }

    /// The path through the application that led to `connection`'s latest request.
    pub(super) fn path(&self, connection: &Connection) -> Option<CodePath> {
        connection.callers.last_used_by.as_ref().and_then(|id| self.code.path(id))
    }

    /// Whether `connection`'s latest request came from the application, as far as its stack tells.
    pub(super) fn blames(&self, connection: &Connection) -> bool {
        connection.callers.last_used_by.as_ref().is_some_and(|id| self.code.blames(id))
    }

    /// Uses in `connection`'s pool after which the connection was given back, with their paths
    /// through the application: other uses followed on the same connection.
    ///
    /// Code that keeps using a connection that it holds is not counted: uses by the same path as
    /// the latest one on the same connection, in quick succession.
    pub(super) fn given_back(&self, connection: &Connection) -> Vec<(Timestamp, CodePath)> {
        let pool = self.table.pool_of(connection);
        let given_back = |used: &ReusedAfter| {
            // What a pool does by itself, to clean up what it got back, shows that it got it back.
            let path = self.code.path(&used.stack);
            let path = path.unwrap_or(CodePath::Stack(used.stack));
            let is_held = || {
                let latest = self.table.get(used.id).and_then(|connection| self.path(connection));
                latest.as_ref() == Some(&path) && used.pause < self.grace()
            };
            (!is_held()).then_some((used.at, path))
        };
        self.memory.reused_after(&pool).filter_map(given_back).collect()
    }

    /// The longest pause in `connection`'s pool that ended although the pool grew, after a use by
    /// this path, or by one that may be the same.
    pub(super) fn longest_pause(
        &self,
        connection: &Connection,
        path: Option<&CodePath>,
    ) -> Duration {
        let may_be_after = |after: Option<&StackId>| {
            let after = after.and_then(|id| self.code.path(id));
            path.is_none() || after.is_none() || after.as_ref() == path
        };
        let pool = self.table.pool_of(connection);
        let pauses = self.memory.pauses(&pool).filter(|(after, _)| may_be_after(*after));
        pauses.map(|(_, pause)| pause).max().unwrap_or_default()
    }

    /// How regularly `connection` is used.
    pub(super) fn rhythm(&self, connection: &Connection) -> Rhythm {
        self.memory.rhythm(connection)
    }

    /// How old the connections of `pool` were that ended last.
    pub(super) fn retired(&self, pool: &Pool<'_>) -> impl Iterator<Item = Duration> {
        self.memory.retired(pool)
    }

    /// The code that a stack blames.
    pub(super) fn cause(&self, stack: Option<&StackId>) -> Option<CodeKey> {
        stack.and_then(|id| self.code.cause(id))
    }

    /// Net growth of `connection`'s pool since it fell silent, without what the pool opened in the
    /// first moments after.
    #[must_use]
    pub fn lasting_growth(&self, connection: &Connection) -> i64 {
        let from = connection.silent_since().after(self.grace());
        self.table.pool_of(connection).growth_since(from)
    }

    /// How long openings after a connection's last use are attributed to the same burst.
    #[must_use]
    pub fn grace(&self) -> Duration {
        burst_of(self.thresholds.silent_after)
    }

    /// How long a burst may take to open and use what it needs, even on a busy machine.
    #[must_use]
    pub fn burst(&self) -> Duration {
        const LEAST: Duration = Duration::from_secs(3);
        const MOST: Duration = Duration::from_secs(30);
        (self.thresholds.silent_after / 4).clamp(LEAST, MOST)
    }

    /// Makes one verdict of all `accused` with the same process, server and code to blame; `say`
    /// gives its severity and evidence.
    pub(super) fn verdicts<E: Evidence + 'static>(
        &self,
        reason: Reason,
        accused: impl IntoIterator<Item = &'a Connection>,
        say: impl Fn(&[&'a Connection]) -> (Severity, E),
    ) -> Vec<Verdict> {
        let mut alike: BTreeMap<Common, Vec<&Connection>> = BTreeMap::new();
        for connection in accused {
            let (stack_of, stack) = shown_stack(connection);
            let cause = self.cause(stack.as_ref());
            // Where nobody is named, stacks tell nothing apart.
            let stack_of = if cause.is_some() { stack_of } else { StackOf::LastUsedBy };
            let common = (connection.process, connection.endpoints.remote, stack_of, cause);
            alike.entry(common).or_default().push(connection);
        }
        let verdict = |((process, remote, _, cause), mut members): (Common, Vec<_>)| {
            members.sort_unstable_by_key(|connection: &&Connection| connection.id);
            let (severity, evidence) = say(&members);
            let (stack_of, stack) = commonest_stack(&members);
            Verdict {
                reason,
                severity,
                process,
                remote,
                pool: None,
                connections: members.iter().map(|connection| connection.id).collect(),
                evidence: Arc::new(evidence),
                stack_of,
                stack,
                cause,
            }
        };
        alike.into_iter().map(verdict).collect()
    }
}

/// Whether an answer has begun and stopped: the last bytes came from the server, which does not say
/// that it is still at work. A cursor that is read in part and forgotten looks like this.
pub(super) fn is_answered_in_part(connection: &Connection) -> bool {
    let side = connection.server_now();
    let is_at_work = side.is_some_and(|side| side.dialogue() == WireState::Busy);
    connection.wire.state == WireState::Busy
        && connection.tcp.state == TcpState::Established
        && connection.traffic.last_receive > connection.traffic.last_send
        && !is_at_work
}

/// The connections that belong to a thread, in pools where most connections do.
fn bound_to_threads(table: &ConnectionTable, memory: &Memory) -> HashSet<ConnectionId> {
    let mut pools: BTreeMap<PoolKey, Vec<ConnectionId>> = BTreeMap::new();
    for connection in table.connections().filter(|one| memory.may_be_bound(one)) {
        let pool = table.pool_of(connection);
        if memory.is_bound_to_thread(connection, &pool) {
            pools.entry(pool.key).or_default().push(connection.id);
        }
    }
    let is_most =
        |open: i64, bound: usize| i64::try_from(2 * bound).is_ok_and(|twice| twice > open);
    pools.retain(|key, bound| is_most(table.pool(key).open_now(), bound.len()));
    pools.into_values().flatten().collect()
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

/// The stack that names the culprit. Pools dial on helper threads and on behalf of innocent
/// requests, so the opener is shown only for a connection that was never used. Where the last user
/// is unknown, nobody is named.
pub(super) fn shown_stack(connection: &Connection) -> (StackOf, Option<StackId>) {
    let unused = connection.requests.count == 0 || connection.wire.state == WireState::Startup;
    if unused {
        (StackOf::OpenedBy, connection.callers.opened_by)
    } else {
        (StackOf::LastUsedBy, connection.callers.last_used_by)
    }
}
