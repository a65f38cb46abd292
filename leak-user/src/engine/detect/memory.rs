//! What detectors remember of the past, beside the table.
//!
//! The table knows the present. Whether a silence means anything depends on the past: how long such
//! silences lasted, which code gave connections back, which threads keep one for themselves. Both
//! are fed by the same events.

mod pool;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub(super) use pool::ReusedAfter;

use crate::engine::table::{
    Connection, ConnectionTable, Identity, Observer, Pool, PoolKey, PoolObserver, Pools, Request,
};
use crate::model::{ConnectionId, ProcessKey, StackId, Timestamp, WireState};
use pool::PoolMemory;

/// Pauses that differ by no more than this part of one are alike.
const ALIKE: u32 = 5;

/// What detectors remember.
#[derive(Debug, Default)]
pub struct Memory {
    pools: HashMap<(ProcessKey, SocketAddr), BTreeMap<Arc<Identity>, PoolMemory>>,
    rhythms: HashMap<ConnectionId, Rhythm>,
    /// Connections whose latest request was begun by a thread that has ended.
    users_gone: HashSet<ConnectionId>,
}

/// How regularly a connection is used.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rhythm {
    /// How many pauses in a row were about as long as the one before.
    pub(super) regular_pauses: u32,
    /// The pause before its latest request.
    pub(super) last_pause: Duration,
}

impl Rhythm {
    fn paused(&mut self, pause: Duration) {
        let is_like = pause.abs_diff(self.last_pause) <= pause / ALIKE;
        self.regular_pauses = if is_like { self.regular_pauses + 1 } else { 0 };
        self.last_pause = pause;
    }
}

/// The part at the beginning of `period` that is attributed to a burst. Pools fill up and replace
/// connections in bursts, so openings right after a use say nothing yet.
pub(super) fn burst_of(period: Duration) -> Duration {
    const SHARE: u32 = 8;
    const LEAST: Duration = Duration::from_secs(1);
    const MOST: Duration = Duration::from_secs(10);
    (period / SHARE).clamp(LEAST, MOST)
}

impl Memory {
    /// Connections silent for at least `silent_for` that only one thread has used, with the latest
    /// request's number and its process and thread. Connections whose thread is known to be gone
    /// are left out.
    pub fn bound_to_threads<'a>(
        &'a self,
        table: &'a ConnectionTable,
        silent_for: Duration,
        now: Timestamp,
    ) -> impl Iterator<Item = (ConnectionId, u64, (u32, u32))> + 'a {
        table
            .connections()
            .filter(move |connection| {
                self.may_be_bound(connection) && connection.silent_for(now) >= silent_for
            })
            .filter_map(|connection| {
                let requests = &connection.requests;
                Some((connection.id, requests.count, requests.latest_by?))
            })
    }

    /// Whether `connection`, of `pool`, seems to belong to a thread rather than the pool: no other
    /// thread has used it, and this one lives and has used no other connection of the pool since.
    pub(super) fn is_bound_to_thread(&self, connection: &Connection, pool: &Pool<'_>) -> bool {
        let Some((_, tid)) = connection.requests.latest_by else { return false };
        let seen = self.of(pool).filter_map(|memory| memory.thread_seen(tid)).max();
        seen <= connection.requests.latest_at
    }

    /// Whether only one thread has used `connection`, which is not known to be gone.
    pub(super) fn may_be_bound(&self, connection: &Connection) -> bool {
        let requests = &connection.requests;
        !requests.moved && requests.latest_by.is_some() && !self.users_gone.contains(&connection.id)
    }

    /// How regularly `connection` is used.
    pub(super) fn rhythm(&self, connection: &Connection) -> Rhythm {
        self.rhythms.get(&connection.id).copied().unwrap_or_default()
    }

    /// The longest pauses of the pool's connections that ended although the pool grew, each with
    /// the stack of the use before: shorter silences prove nothing.
    pub(super) fn pauses(
        &self,
        pool: &Pool<'_>,
    ) -> impl Iterator<Item = (Option<&StackId>, Duration)> {
        self.of(pool).flat_map(PoolMemory::pauses)
    }

    /// Recent uses that were followed by others of the same connection.
    pub(super) fn reused_after(&self, pool: &Pool<'_>) -> impl Iterator<Item = &ReusedAfter> {
        self.of(pool).flat_map(PoolMemory::reused_after)
    }

    /// The longest time that a request on one of the pool's connections took to be answered.
    pub(super) fn longest_wait(&self, pool: &Pool<'_>) -> Duration {
        self.of(pool).map(PoolMemory::longest_wait).max().unwrap_or_default()
    }

    /// The ages of the connections that ended last.
    pub(super) fn retired(&self, pool: &Pool<'_>) -> impl Iterator<Item = Duration> {
        self.of(pool).flat_map(PoolMemory::retired)
    }

    /// The latest use by each stack after which a connection was not kept: it was used again after
    /// a pause, or closed.
    pub(super) fn let_go(&self, pool: &Pool<'_>) -> impl Iterator<Item = (&StackId, Timestamp)> {
        self.of(pool).flat_map(PoolMemory::let_go)
    }

    /// The stacks that it refers to.
    pub fn stacks(&self) -> impl Iterator<Item = &StackId> {
        self.pools.values().flat_map(BTreeMap::values).flat_map(PoolMemory::stacks)
    }

    fn of(&self, pool: &Pool<'_>) -> impl Iterator<Item = &PoolMemory> {
        let pools = self.pools.get(&(pool.key.process, pool.key.remote));
        pool.identities().filter_map(move |identity| pools?.get(identity))
    }

    /// What is remembered of a pool, unless the table has forgotten it.
    fn pool(&mut self, key: &PoolKey, pools: &Pools) -> Option<&mut PoolMemory> {
        let PoolKey { process, remote, identity } = key;
        if !pools.contains(key) {
            return None;
        }
        let identities = self.pools.entry((*process, *remote)).or_default();
        Some(identities.entry(Arc::clone(identity)).or_default())
    }
}

impl Observer for Memory {
    fn request_began(&mut self, request: Request<'_>, pools: &Pools) {
        let Request { id, pool: key, at, silent_since, after, left } = request;
        self.users_gone.remove(&id);
        let Some(at) = at else { return };
        let pause = at.since(silent_since);
        self.rhythms.entry(id).or_default().paused(pause);
        let burst = burst_of(pause);
        let grew = || {
            let pool = pools.pool(key);
            pool.open_at(at) > pool.open_at(silent_since.after(burst))
        };
        let outlasted_growth = pause > burst && grew();
        let Some(pool) = self.pool(key, pools) else { return };
        if outlasted_growth {
            pool.note_pause(after, pause);
        }
        if let Some(stack) = after.filter(|_| pause > burst) {
            pool.note_let_go(*stack, silent_since);
        }
        if let Some(stack) = after.cloned() {
            pool.note_reuse(ReusedAfter { id, at: silent_since, stack, pause, left });
        }
    }

    fn answered(&mut self, pool: &PoolKey, after: Duration, pools: &Pools) {
        if let Some(pool) = self.pool(pool, pools) {
            pool.note_wait(after);
        }
    }

    fn earlier_request_resolved(
        &mut self,
        id: ConnectionId,
        pool: &PoolKey,
        stack: &StackId,
        now: Timestamp,
        pools: &Pools,
    ) {
        if let Some(pool) = self.pool(pool, pools) {
            let (stack, pause, left) = (*stack, Duration::ZERO, WireState::Unknown);
            pool.note_reuse(ReusedAfter { id, at: now, stack, pause, left });
        }
    }

    fn used_by(&mut self, pool: &PoolKey, tid: u32, at: Timestamp, pools: &Pools) {
        if let Some(pool) = self.pool(pool, pools) {
            pool.note_thread(tid, at);
        }
    }

    fn user_gone(&mut self, id: ConnectionId) {
        self.users_gone.insert(id);
    }

    fn ended(
        &mut self,
        connection: &Connection,
        pool: &PoolKey,
        age: Option<Duration>,
        pools: &Pools,
    ) {
        self.rhythms.remove(&connection.id);
        self.users_gone.remove(&connection.id);
        let Some(pool) = self.pool(pool, pools) else { return };
        if let Some(age) = age {
            pool.note_end(age);
        }
        if let Some(stack) = connection.callers.last_used_by {
            pool.note_let_go(stack, connection.silent_since());
        }
    }
}

impl PoolObserver for Memory {
    fn pools_forgotten(&mut self, process: ProcessKey, remote: SocketAddr) {
        self.pools.remove(&(process, remote));
    }
}
