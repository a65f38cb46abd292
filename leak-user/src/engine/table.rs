//! The one truthful table of connections.
//!
//! Events change it, and nothing else: it reads no clock and asks no kernel, so that a recording
//! gives the same table as the run that it was made from. It is bounded: when it is full, it
//! refuses newcomers and counts them. It never makes room by forgetting a connection, because the
//! one that is silent for longest is the one that leaks.

mod connection;
mod counters;
mod gone;
mod history;
mod inventory;
mod losses;
mod matching;
mod member;
mod pools;
mod servers;
mod tally;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

pub use connection::Connection;
pub use losses::Losses;
pub use member::WentOn;
pub use pools::{Identity, Pool, PoolKey};
pub use servers::{Server, ServerSide, ServerStatus, SessionGroup, Stranger};
pub use tally::{ProcessTally, Tally};

use crate::model::{
    Caller, ConnectionId, Endpoints, Event, ProcessKey, StackId, StackRole, Timestamp, Usage, Wire,
};
use gone::Gone;
use pools::Pools;
use tally::Tallies;

/// All live connections, and what was counted of those that are gone.
#[derive(Debug)]
pub struct ConnectionTable {
    capacity: usize,
    /// In order, so that the same events are always judged in the same order. Boxed, because the tree's
    /// nodes are half empty where ids come in order.
    connections: BTreeMap<ConnectionId, Box<Connection>>,
    gone: Gone,
    pools: Pools,
    tallies: Tallies,
    losses: Losses,
    servers: BTreeMap<String, Server>,
    began: Option<Timestamp>,
    last_inventory: Option<Timestamp>,
    /// What the first inventory listed and the full table could not take.
    untracked_at_first: HashSet<ConnectionId>,
}

impl ConnectionTable {
    /// An empty table that takes up to `capacity` connections.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            connections: BTreeMap::new(),
            gone: Gone::default(),
            pools: Pools::default(),
            tallies: Tallies::default(),
            losses: Losses::default(),
            servers: BTreeMap::new(),
            began: None,
            last_inventory: None,
            untracked_at_first: HashSet::new(),
        }
    }

    /// Takes in what has happened. `now` is when the collector learnt of it.
    pub fn apply(&mut self, event: &Event, now: Timestamp) {
        self.began.get_or_insert(now);
        match event {
            Event::Opened { id, at, caller, endpoints } => {
                self.opened(*id, *at, caller, *endpoints, now);
            }
            Event::Established { id, at, endpoints } => {
                if let Some(connection) = self.connections.get_mut(id) {
                    connection.establish(*at, *endpoints);
                }
            }
            Event::Failed { id, at, errno: _ } => self.remove(*id, *at, true, now),
            Event::Closed { id, at, usage } => self.closed(*id, *at, usage, now),
            Event::Used { id, usage } => self.used(*id, usage, now),
            Event::Unchanged { ids } => self.unchanged(ids, now),
            Event::Inventory { began, sockets, complete } => {
                self.reconcile(*began, sockets, *complete, now);
            }
            Event::Uses { id, uses } => {
                if let Some(connection) = self.connections.get_mut(id) {
                    connection.uses = Some(uses.clone());
                }
            }
            Event::ServerSessions { server, at, answer } => self.hear(server, *at, answer),
            Event::StackResolved { id, role, stack, goroutine } => {
                if let Some(connection) = self.connections.get_mut(id) {
                    connection.use_stack(*role, stack.as_ref(), *goroutine);
                    if let (StackRole::LastUsedBy { request }, Some(stack)) = (role, stack)
                        && *request < connection.requests
                    {
                        let (id, stack, pause) = (*id, *stack, Duration::ZERO);
                        self.pools.went_on(&connection.pool, WentOn { id, at: now, stack, pause });
                    }
                }
            }
            Event::UserGone { id, request } => {
                if let Some(connection) = self.connections.get_mut(id) {
                    connection.user_gone = connection.requests == *request;
                }
            }
        }
    }

    /// The live connections, in the order of their ids.
    pub fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.connections.values().map(Box::as_ref)
    }

    /// One live connection.
    #[must_use]
    pub fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections.get(&id).map(Box::as_ref)
    }

    /// What was counted per process, in no order.
    pub fn processes(&self) -> impl Iterator<Item = (ProcessKey, &ProcessTally)> {
        self.tallies.processes()
    }

    /// What was counted for one process.
    #[must_use]
    pub fn process(&self, key: ProcessKey) -> Option<&ProcessTally> {
        self.tallies.process(key)
    }

    /// What was counted of processes that are gone and forgotten, by name and server: with those that
    /// are not, the totals never fall.
    #[must_use]
    pub fn forgotten_tallies(&self) -> &BTreeMap<(String, SocketAddr), Tally> {
        self.tallies.forgotten()
    }

    /// What had to be corrected or refused.
    #[must_use]
    pub fn losses(&self) -> Losses {
        Losses { folded: self.pools.folded(), ..self.losses }
    }

    /// When the first event was applied.
    #[must_use]
    pub fn began(&self) -> Option<Timestamp> {
        self.began
    }

    /// The group that `connection` is judged with.
    #[must_use]
    pub fn pool_of(&self, connection: &Connection) -> Pool<'_> {
        self.pools.pool(&connection.pool)
    }

    /// A group by its name.
    #[must_use]
    pub fn pool(&self, key: &PoolKey) -> Pool<'_> {
        self.pools.pool(key)
    }

    /// Every group.
    pub fn pools(&self) -> impl Iterator<Item = Pool<'_>> {
        self.pools.all()
    }

    /// The stacks that groups remember, besides those of the connections.
    pub fn remembered_stacks(&self) -> impl Iterator<Item = &StackId> {
        self.pools.stacks()
    }

    /// Net growth of `connection`'s group since it fell silent.
    #[must_use]
    pub fn opened_since_silent(&self, connection: &Connection) -> i64 {
        self.pool_of(connection).growth_since(connection.silent_since())
    }

    /// Connections silent for at least `silent_for` whose latest request's stack was not looked for
    /// yet, with that request's number.
    pub fn wanting_stack(
        &self,
        silent_for: Duration,
        now: Timestamp,
    ) -> impl Iterator<Item = (ConnectionId, u64)> {
        self.connections
            .values()
            .filter(move |connection| {
                connection.requests != connection.stack_sought
                    && connection.silent_for(now) >= silent_for
            })
            .map(|connection| (connection.id, connection.requests))
    }

    /// Up to `most` connections of each group that were used since `since`, with their latest request's
    /// number: its stack is one of the code that gives connections back.
    #[must_use]
    pub fn wanting_sample(&self, since: Timestamp, most: usize) -> Vec<(ConnectionId, u64)> {
        let mut taken: HashMap<&PoolKey, usize> = HashMap::new();
        let used = self.connections.values().filter(|connection| {
            connection.requests != connection.stack_sought && connection.silent_since() >= since
        });
        used.filter(|connection| {
            let taken = taken.entry(&connection.pool).or_default();
            *taken += 1;
            *taken <= most
        })
        .map(|connection| (connection.id, connection.requests))
        .collect()
    }

    /// Connections silent for at least `silent_for` that only one thread has used, with the latest
    /// request's number and its process and thread; not those whose thread is known to be gone.
    pub fn bound_to_threads(
        &self,
        silent_for: Duration,
        now: Timestamp,
    ) -> impl Iterator<Item = (ConnectionId, u64, (u32, u32))> {
        self.connections
            .values()
            .filter(move |connection| {
                !connection.moved
                    && !connection.user_gone
                    && connection.silent_for(now) >= silent_for
            })
            .filter_map(|connection| {
                Some((connection.id, connection.requests, connection.request_by?))
            })
    }

    /// Whether `connection` seems to belong to a thread rather than to a pool: no other thread has
    /// used it, and this one lives and has used no other of the group since.
    #[must_use]
    pub fn is_bound_to_thread(&self, connection: &Connection) -> bool {
        let Some((_, tid)) = connection.request_by else { return false };
        !connection.moved
            && !connection.user_gone
            && self.pool_of(connection).thread_seen(tid) <= connection.request_at
    }

    fn opened(
        &mut self,
        id: ConnectionId,
        at: Timestamp,
        caller: &Caller,
        endpoints: Endpoints,
        now: Timestamp,
    ) {
        if let Some(known) = self.connections.get_mut(&id) {
            if !known.announced && at <= known.first_seen {
                // The kernel's table or sock_diag told of it before its own event was read.
                if known.opened_at.is_none() {
                    self.tallies.opened_after_all(known.process, known.endpoints.remote);
                }
                known.announce(at, caller);
                let wire = known.wire.clone();
                self.regroup(id, &wire, Some(at));
                return;
            }
            self.remove(id, at, false, now);
        }
        self.gone.remove(id);
        if self.connections.len() >= self.capacity {
            self.losses.refused += 1;
            return;
        }
        self.insert(id, caller.process, endpoints, Some(at), Some(at), now);
        self.tallies.name(caller);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.announce(at, caller);
            connection.state_changed_at = at;
        }
    }

    /// Puts a connection into the table, whose fullness the caller has looked at.
    fn insert(
        &mut self,
        id: ConnectionId,
        process: ProcessKey,
        endpoints: Endpoints,
        opened_at: Option<Timestamp>,
        counted_since: Option<Timestamp>,
        now: Timestamp,
    ) {
        let pool = self.pools.add(process, endpoints.remote, Identity::default(), counted_since);
        let mut connection = Connection::new(id, endpoints, pool, counted_since, now);
        connection.opened_at = opened_at;
        self.connections.insert(id, Box::new(connection));
        self.tallies.add(process, endpoints.remote, opened_at.is_some(), now);
    }

    fn closed(&mut self, id: ConnectionId, at: Timestamp, usage: &Usage, now: Timestamp) {
        let known = self.connections.contains_key(&id);
        // Of a connection that was refused, only the end is seen; that is no correction.
        let missed = !known
            && !usage.adopted
            && self.losses.refused == 0
            && self.gone.at(id).is_none_or(|gone| usage.opened_at > gone);
        if missed {
            self.adopt_used(id, usage, now);
        }
        if self.connections.contains_key(&id) {
            self.used(id, usage, now);
        }
        self.remove(id, at, false, now);
    }

    fn remove(&mut self, id: ConnectionId, at: Timestamp, failed: bool, now: Timestamp) {
        if let Some(connection) = self.connections.remove(&id) {
            if !connection.uncounted {
                self.pools.remove(&connection.pool, Some(at));
            }
            if let Some(opened_at) = connection.opened_at.filter(|_| !failed) {
                self.pools.retired(&connection.pool, at.since(opened_at));
            }
            let remote = connection.endpoints.remote;
            self.tallies.remove(connection.process, remote, failed, now);
            self.gone.insert(id, at);
        }
    }

    /// Moves a connection, with its past, to the group that its startup message names.
    fn regroup(&mut self, id: ConnectionId, wire: &Wire, since: Option<Timestamp>) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if wire.cancels {
            if !std::mem::replace(&mut connection.uncounted, true) {
                self.pools.remove(&connection.pool, connection.counted_since);
            }
            return;
        }
        let identity = Identity::of(wire);
        if *connection.pool.identity == identity && connection.counted_since == since {
            return;
        }
        self.pools.remove(&connection.pool, connection.counted_since);
        let PoolKey { process, remote, .. } = connection.pool;
        connection.pool = self.pools.add(process, remote, identity, since);
        connection.counted_since = since;
    }
}
