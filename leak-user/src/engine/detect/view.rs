//! What detectors see.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::engine::detect::code::{Call, CodePath, CodeReader};
use crate::engine::detect::memory::{ReusedAfter, Rhythm, burst_of};
use crate::engine::detect::{
    CodeKey, Culprit, Memory, Reason, Silence, StackOf, Stacks, Thresholds,
};
use crate::engine::fate::{Fate, Fates};
use crate::engine::senders::{Sender, Senders};
use crate::engine::table::{Connection, ConnectionTable, Place, Pool, PoolKey};
use crate::model::{ConnectionId, StackId, TcpState, Timestamp, WireState};
use leak_stacks::Language;

/// So many pools a program may have for its servers and roles; a pool for each request makes more.
const FEW_POOLS: usize = 4;

/// Accusations of severity leak, each with the moment since when the connection was silent.
pub type PriorAccusations = HashMap<(Reason, ConnectionId), Timestamp>;

/// The table at one moment, without connections that have been judged.
#[derive(Debug)]
pub struct View<'a> {
    table: &'a ConnectionTable,
    memory: &'a Memory,
    code: CodeReader<'a>,
    senders: &'a Senders,
    fates: Fates<'a>,
    thresholds: &'a Thresholds,
    prior: &'a PriorAccusations,
    /// Connections that belong to a thread rather than a pool.
    bound: HashSet<ConnectionId>,
    taken: HashSet<ConnectionId>,
    /// Connections that are in their pool, by its own word.
    resting: HashSet<ConnectionId>,
    /// Connections held by calls of which more and more come and none goes on.
    piled_up: HashSet<ConnectionId>,
}

impl<'a> View<'a> {
    /// A view of everything in the table.
    #[must_use]
    pub fn new(
        table: &'a ConnectionTable,
        memory: &'a Memory,
        stacks: &'a Stacks,
        senders: &'a Senders,
        thresholds: &'a Thresholds,
        prior: &'a PriorAccusations,
    ) -> Self {
        let bound = bound_to_threads(table, memory);
        let (code, fates) = (CodeReader::new(stacks), Fates::new(table, stacks));
        let (taken, resting, piled_up) = (HashSet::new(), HashSet::new(), HashSet::new());
        Self {
            table,
            memory,
            code,
            senders,
            fates,
            thresholds,
            prior,
            bound,
            taken,
            resting,
            piled_up,
        }
    }

    /// Leaves out connections that their pool has just been read to hold: nobody has lost them. In
    /// one of many pools that proves nothing: the pool itself may be lost. Nor does it excuse an
    /// open transaction, as of code that begins one behind the pool's back.
    pub(super) fn leave_resting(&mut self, now: Timestamp) {
        let since = self.thresholds.recently(now);
        let is_resting = |connection: &&Connection| {
            let place = connection.place_now(since);
            let is_inside = |place: Place| !place.checked_out && place.pools <= FEW_POOLS;
            place.is_some_and(is_inside) && !is_in_transaction(connection)
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

    /// What became of connections.
    pub(super) fn fates(&self) -> &Fates<'a> {
        &self.fates
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

    /// Whether `connection` stands accused of anything with severity leak.
    pub(super) fn is_accused(&self, connection: &Connection) -> bool {
        Reason::ALL.iter().any(|&reason| self.prior.contains_key(&(reason, connection.id)))
    }

    /// The connections that have been silent for long and that a healthy pool would use next.
    ///
    /// Not those that listen. Not those that belong to a thread either, in pools where most do:
    /// such a thread opens a connection of its own whatever is idle elsewhere; unless there are
    /// more and more of them.
    pub(super) fn idle_connections(&self, now: Timestamp) -> impl Iterator<Item = &'a Connection> {
        let is_bound = |id| self.bound.contains(id) && !self.piled_up.contains(id);
        self.free_connections(now).filter(move |connection| !is_bound(&connection.id))
    }

    /// The same with those that belong to a thread.
    pub(super) fn free_connections(&self, now: Timestamp) -> impl Iterator<Item = &'a Connection> {
        self.silent_connections(now)
            .filter(|connection| !connection.wire.listens && is_free(connection))
    }

    /// Whether a connection is being opened, or its request being answered.
    pub(super) fn is_at_work(&self, connection: &Connection) -> bool {
        !is_free(connection) && !is_in_transaction(connection)
    }

    /// The connections that listen and have sent nothing for as long as silence takes: what they
    /// receive is no use of them.
    pub(super) fn resting_listeners(&self, now: Timestamp) -> impl Iterator<Item = &'a Connection> {
        let silent_after = self.thresholds.silent_after;
        self.connections().filter(move |known| {
            let last_send = known.traffic.last_send;
            known.wire.listens
                && known.is_idle()
                && last_send.is_some_and(|at| now.since(at) >= silent_after)
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

    /// The longest time that a request on one of the pool's connections took to be answered.
    pub(super) fn longest_wait(&self, pool: &Pool<'_>) -> Duration {
        self.memory.longest_wait(pool)
    }

    /// Connections held by calls that pile up: see [`super::held`].
    pub(super) fn set_piled_up(&mut self, connections: HashSet<ConnectionId>) {
        self.piled_up = connections;
    }

    /// Whether the call that used `connection` last still runs and may go on yet, as slow calls and
    /// long transactions do.
    pub(super) fn may_be_only_slow(&self, connection: &Connection) -> bool {
        self.fates.of(connection) == Fate::Held && !self.piled_up.contains(&connection.id)
    }

    /// Whether a use by this path, not before `since`, let its connection go.
    pub(super) fn has_let_go(&self, pool: &Pool<'_>, path: &CodePath, since: Timestamp) -> bool {
        let mut uses = self.memory.let_go(pool);
        uses.any(|(stack, at)| at >= since && self.code.path(stack).as_ref() == Some(path))
    }

    /// The code that sends the last statement of `connection`, where that is known.
    pub(super) fn sender_of(&self, connection: &Connection) -> Option<Sender> {
        self.senders.of(connection)
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

    /// The calls of the application in a known stack, innermost first; `None` when there are none.
    pub(super) fn calls(&self, stack: &StackId) -> Option<Arc<[Call]>> {
        self.code.calls(stack)
    }

    /// Recent uses of a pool's connections that were followed by others of the same connection.
    pub(super) fn reused_stacks(&self, pool: &PoolKey) -> Vec<(ConnectionId, &'a StackId)> {
        let memory: &'a Memory = self.memory;
        let pool = self.table.pool(pool);
        memory.reused_after(&pool).map(|used| (used.id, &used.stack)).collect()
    }

    /// Whether the code that used `connection` last was seen to leave the server outside of a
    /// transaction, by the very same calls: then it does not know of one that is open.
    pub(super) fn works_outside_transactions(&self, connection: &Connection) -> bool {
        let Some(stack) = &connection.callers.last_used_by else { return false };
        let pool = self.table.pool_of(connection);
        self.calls(stack).is_some()
            && self
                .memory
                .reused_after(&pool)
                .any(|used| used.left == WireState::Idle && used.stack == *stack)
    }

    /// Whether a thread stands for a caller in the program that `connection` is of. Elsewhere tasks
    /// move from thread to thread, or nobody knows.
    pub(super) fn has_thread_per_caller(&self, connection: &Connection) -> bool {
        let stack = connection.callers.last_used_by.as_ref();
        let language = stack.and_then(|stack| self.code.language(stack));
        matches!(language, Some(Language::Python | Language::Java | Language::Ruby))
    }

    /// The frame that a stack blames.
    pub(super) fn culprit(&self, stack_of: StackOf, stack: Option<&StackId>) -> Option<Culprit> {
        let frame = stack.and_then(|id| self.code.frame(id))?;
        Some(Culprit { frame, from: stack_of.into() })
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
}

fn is_in_transaction(connection: &Connection) -> bool {
    matches!(connection.dialogue(), WireState::InTransaction | WireState::FailedTransaction)
}

/// Whether nothing is asked of a connection that is not answered, as far as the server means to.
fn is_free(connection: &Connection) -> bool {
    connection.is_idle()
        || connection.wire.state == WireState::Copy
        || is_answered_in_part(connection)
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
