//! The one truthful table of connections.
//!
//! Events change it, and nothing else: it reads no clock and asks no kernel, so that a recording
//! gives the same table as the run that it was made from. It is bounded: when it is full, it
//! refuses new connections and counts them. It never evicts one to make room, because the
//! connection that has been silent for longest is the one that leaks.

mod answers;
mod connection;
mod counters;
mod drivers;
mod end;
mod gone;
mod history;
mod inventory;
mod looks;
mod losses;
mod matching;
mod observer;
mod pools;
mod program_pools;
mod refusals;
mod servers;
mod tally;
#[cfg(test)]
mod tests;
mod unclosed;
mod waiting;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

pub use connection::{Callers, Connection, DriverSide, Place, Requests, Tcp, Traffic};
pub use losses::Losses;
pub use observer::{Observer, Request};
pub use pools::{Identity, Pool, PoolKey, PoolObserver, Pools};
pub use program_pools::ProgramPool;
pub use refusals::Refusals;
pub use servers::{Server, ServerSide, ServerStatus, SessionGroup, Stranger};
pub use tally::{ProcessTally, Tally};
pub use waiting::Waiting;

use crate::model::{
    Caller, ConnectionId, Endpoints, Event, ProcessKey, StackRole, Timestamp, Usage, Wire,
};
use end::End;
use gone::Gone;
use program_pools::ProgramPools;
use refusals::AllRefusals;
use tally::Tallies;
use unclosed::Unclosed;
use waiting::WaitingProcesses;

/// A connection that comes into the table.
#[derive(Clone, Copy, Debug)]
struct Newcomer {
    process: ProcessKey,
    /// When it was opened, where that was seen.
    opened_at: Option<Timestamp>,
    /// Since when its pool has it; `None`: since before the trace.
    counted_since: Option<Timestamp>,
}

/// All live connections, and what was counted of those that are gone.
#[derive(Debug)]
pub struct ConnectionTable {
    capacity: usize,
    /// In order, so that the same events are always judged in the same order. Boxed, because the
    /// tree's nodes are half empty where ids come in order.
    connections: BTreeMap<ConnectionId, Box<Connection>>,
    gone: Gone,
    pools: Pools,
    program_pools: ProgramPools,
    tallies: Tallies,
    losses: Losses,
    servers: BTreeMap<String, Server>,
    refusals: AllRefusals,
    unclosed: Unclosed,
    waiting: WaitingProcesses,
    began: Option<Timestamp>,
    last_inventory: Option<Timestamp>,
    /// Connections that the first inventory listed and the full table could not take.
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
            program_pools: ProgramPools::default(),
            tallies: Tallies::default(),
            losses: Losses::default(),
            servers: BTreeMap::new(),
            refusals: AllRefusals::default(),
            unclosed: Unclosed::default(),
            waiting: WaitingProcesses::default(),
            began: None,
            last_inventory: None,
            untracked_at_first: HashSet::new(),
        }
    }

    /// Takes in what has happened, and tells `observer` what it meant. `now` is when the collector
    /// learnt of it.
    pub fn apply(&mut self, event: &Event, now: Timestamp, observer: &mut dyn Observer) {
        self.began.get_or_insert(now);
        match event {
            Event::Opened { id, at, caller, endpoints } => {
                self.opened(*id, *at, caller, *endpoints, now, observer);
            }
            Event::Established { id, at, endpoints } => {
                if let Some(connection) = self.connections.get_mut(id) {
                    connection.establish(*at, *endpoints);
                }
            }
            Event::Failed { id, at, errno: _ } => {
                self.remove(*id, *at, End::Failed, now, observer);
            }
            Event::Closed { id, at, usage } => self.closed(*id, *at, usage, now, observer),
            Event::Used { id, usage } => self.used(*id, usage, now, observer),
            Event::Unchanged { ids } => self.unchanged(ids, now),
            Event::Inventory { began, sockets, complete } => {
                self.reconcile(*began, sockets, *complete, now, observer);
            }
            Event::Uses { id, uses } => {
                if let Some(connection) = self.connections.get_mut(id) {
                    connection.callers.uses = Some(uses.clone());
                }
            }
            Event::ServerSessions { server, at, answer } => self.hear(server, *at, answer),
            Event::StackResolved { id, role, stack, goroutine } => {
                if let Some(connection) = self.connections.get_mut(id) {
                    connection.use_stack(*role, stack.as_ref(), *goroutine);
                    if let (StackRole::LastUsedBy { request }, Some(stack)) = (role, stack)
                        && *request < connection.requests.count
                    {
                        let pool = &connection.account.pool;
                        observer.earlier_request_resolved(*id, pool, stack, now, &self.pools);
                    }
                }
            }
            Event::PoolsRead { process, at, pools } => {
                self.program_pools.learn(*process, *at, pools, &mut self.connections);
            }
            Event::StatesRead { process, at, states } => self.hear_driver(*process, *at, states),
            Event::UserGone { id, request } => {
                if self.get(*id).is_some_and(|connection| connection.requests.count == *request) {
                    observer.user_gone(*id);
                }
            }
            Event::Waiting { process, at, waiters } => self.waiting.take(*process, *at, waiters),
            Event::UserSeen { id, request, place } => {
                if let Some(connection) = self.connections.get_mut(id) {
                    connection.callers.see_user(*request, *place, connection.requests.count);
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

    /// Counts of processes that were forgotten, by name and server. Added to those of the
    /// remembered ones they give totals that never fall.
    #[must_use]
    pub fn forgotten_tallies(&self) -> &BTreeMap<(String, SocketAddr), Tally> {
        self.tallies.forgotten()
    }

    /// What had to be corrected or refused.
    #[must_use]
    pub fn losses(&self) -> Losses {
        Losses { folded: self.pools.folded(), ..self.losses }
    }

    /// What servers have refused in the last minutes because they had no slot left.
    pub fn refusals(&self) -> impl Iterator<Item = (SocketAddr, &Refusals)> {
        self.refusals.by_server()
    }

    /// The connections that their process left open when it exited, since the last judgement.
    #[must_use]
    pub fn unclosed(&self) -> &[Connection] {
        self.unclosed.connections()
    }

    /// Everything was judged that is judged once.
    pub(super) fn judged(&mut self) {
        self.unclosed.clear();
    }

    /// When the first event was applied.
    #[must_use]
    pub fn began(&self) -> Option<Timestamp> {
        self.began
    }

    /// The pool that `connection` is judged with.
    #[must_use]
    pub fn pool_of(&self, connection: &Connection) -> Pool<'_> {
        self.pools.pool(&connection.account.pool)
    }

    /// A pool by its name.
    #[must_use]
    pub fn pool(&self, key: &PoolKey) -> Pool<'_> {
        self.pools.pool(key)
    }

    /// Every pool.
    pub fn pools(&self) -> impl Iterator<Item = Pool<'_>> {
        self.pools.all()
    }

    /// The pools that were read in programs' memory, by process.
    pub fn program_pools(&self) -> impl Iterator<Item = ProgramPool<'_>> {
        self.program_pools.all()
    }

    /// Net growth of `connection`'s pool since it fell silent.
    #[must_use]
    pub fn opened_since_silent(&self, connection: &Connection) -> i64 {
        self.pool_of(connection).growth_since(connection.silent_since())
    }

    /// Connections silent for at least `silent_for`, or for `idle_for` in a transaction or without
    /// an answer, whose latest request's stack was not looked for yet, with that request's number.
    pub fn wanting_stack(
        &self,
        silent_for: Duration,
        idle_for: Duration,
        now: Timestamp,
    ) -> impl Iterator<Item = (ConnectionId, u64)> {
        self.connections
            .values()
            .filter(move |connection| {
                let is_held = connection.is_in_transaction() || connection.is_busy();
                let enough = if is_held { idle_for } else { silent_for };
                connection.requests.count != connection.callers.sought
                    && connection.silent_for(now) >= enough
            })
            .map(|connection| (connection.id, connection.requests.count))
    }

    /// Up to `most` connections of each pool that were used since `since`, with their latest
    /// request's number: its stack is one of the code that gives connections back.
    #[must_use]
    pub fn wanting_sample(&self, since: Timestamp, most: usize) -> Vec<(ConnectionId, u64)> {
        let mut taken: HashMap<&PoolKey, usize> = HashMap::new();
        let used = self.connections.values().filter(|connection| {
            connection.requests.count != connection.callers.sought
                && connection.silent_since() >= since
        });
        used.filter(|connection| {
            let taken = taken.entry(&connection.account.pool).or_default();
            *taken += 1;
            *taken <= most
        })
        .map(|connection| (connection.id, connection.requests.count))
        .collect()
    }

    /// Up to `most` connections to servers that have no slot left whose latest request's stack was
    /// not looked for yet, with that request's number: they are told by code, silent or not.
    #[must_use]
    pub fn wanting_holder(&self, most: usize) -> Vec<(ConnectionId, u64)> {
        let full: HashSet<SocketAddr> = self.refusals().map(|(server, _)| server).collect();
        let holding = self.connections.values().filter(|connection| {
            connection.requests.count != connection.callers.sought
                && full.contains(&connection.endpoints.remote)
        });
        holding.take(most).map(|connection| (connection.id, connection.requests.count)).collect()
    }

    fn opened(
        &mut self,
        id: ConnectionId,
        at: Timestamp,
        caller: &Caller,
        endpoints: Endpoints,
        now: Timestamp,
        observer: &mut dyn Observer,
    ) {
        if let Some(known) = self.connections.get_mut(&id) {
            if !known.account.announced && at <= known.first_seen {
                // The kernel's table or sock_diag told of it before its own event was read.
                if known.opened_at.is_none() {
                    self.tallies.opened_after_all(known.process, known.endpoints.remote);
                }
                known.announce(at, caller);
                let wire = known.wire.clone();
                self.assign_pool(id, &wire, Some(at), observer);
                return;
            }
            self.remove(id, at, End::Closed, now, observer);
        }
        self.gone.remove(id);
        if self.connections.len() >= self.capacity {
            self.losses.refused += 1;
            return;
        }
        let (process, opened_at) = (caller.process, Some(at));
        let newcomer = Newcomer { process, opened_at, counted_since: opened_at };
        self.insert(id, newcomer, endpoints, now, observer);
        self.tallies.name(caller);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.announce(at, caller);
            connection.tcp.state_changed_at = at;
        }
    }

    /// Puts a connection into the table, whose fullness the caller has looked at.
    fn insert(
        &mut self,
        id: ConnectionId,
        newcomer: Newcomer,
        endpoints: Endpoints,
        now: Timestamp,
        observer: &mut dyn Observer,
    ) {
        let Newcomer { process, opened_at, counted_since } = newcomer;
        let remote = endpoints.remote;
        let pool = self.pools.add(process, remote, Identity::default(), counted_since, observer);
        let mut connection = Connection::new(id, endpoints, pool, counted_since, now);
        connection.opened_at = opened_at;
        self.connections.insert(id, Box::new(connection));
        self.tallies.add(process, remote, opened_at.is_some(), now);
    }

    fn closed(
        &mut self,
        id: ConnectionId,
        at: Timestamp,
        usage: &Usage,
        now: Timestamp,
        observer: &mut dyn Observer,
    ) {
        let known = self.connections.contains_key(&id);
        // Of a connection that was refused, only the end is seen; that is no correction.
        let missed = !known
            && !usage.adopted
            && self.losses.refused == 0
            && self.gone.at(id).is_none_or(|gone| usage.opened_at > gone);
        if missed {
            self.adopt_used(id, usage, now, observer);
        }
        if self.connections.contains_key(&id) {
            self.used(id, usage, now, observer);
        }
        self.remove(id, at, End::Closed, now, observer);
    }

    fn remove(
        &mut self,
        id: ConnectionId,
        at: Timestamp,
        end: End,
        now: Timestamp,
        observer: &mut dyn Observer,
    ) {
        if let Some(connection) = self.connections.remove(&id) {
            let pool = &connection.account.pool;
            if !connection.account.uncounted {
                self.pools.remove(pool, Some(at));
            }
            let opened_at = connection.opened_at.filter(|_| end == End::Closed);
            let age = opened_at.map(|opened_at| at.since(opened_at));
            observer.ended(&connection, pool, age, &self.pools);
            let remote = connection.endpoints.remote;
            self.tallies.remove(connection.process, remote, end, now);
            self.gone.insert(id, at);
        }
    }

    /// Moves a connection, with its past, to the pool that its startup message names.
    fn assign_pool(
        &mut self,
        id: ConnectionId,
        wire: &Wire,
        since: Option<Timestamp>,
        observer: &mut dyn Observer,
    ) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let account = &mut connection.account;
        if wire.cancels {
            if !std::mem::replace(&mut account.uncounted, true) {
                self.pools.remove(&account.pool, account.counted_since);
            }
            return;
        }
        let identity = Identity::of(wire);
        if *account.pool.identity == identity && account.counted_since == since {
            return;
        }
        self.pools.remove(&account.pool, account.counted_since);
        let PoolKey { process, remote, .. } = account.pool;
        account.pool = self.pools.add(process, remote, identity, since, observer);
        account.counted_since = since;
    }
}
