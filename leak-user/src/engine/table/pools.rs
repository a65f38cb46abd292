//! Which connections belong to one pool, and how many of them were open when.
//!
//! A pool is not visible from outside. What comes closest are the connections that one process has
//! to one server with the same user, database and application name.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::engine::table::history::History;
use crate::model::{ProcessKey, Timestamp, Wire};

/// Most identities told apart for one process and server; the rest count as unknown.
const MAX_IDENTITIES: usize = 64;

/// Most pairs of process and server told apart. Beyond this limit, the servers of a process share
/// one pool.
const MAX_PAIRS: usize = 16_384;

/// Stands for the servers of a process beyond the limit.
const OTHER_SERVERS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// How long the history of a pool is kept when its last connection is gone.
const KEEP_EMPTY: Duration = Duration::from_secs(600);

/// What a startup message tells of the pool that sent it. Empty for a connection that is encrypted
/// or older than the trace.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// User.
    pub user: Option<String>,
    /// Database.
    pub database: Option<String>,
    /// `application_name`.
    pub application_name: Option<String>,
}

impl Identity {
    pub(super) fn of(wire: &Wire) -> Self {
        Self {
            user: wire.user.clone(),
            database: wire.database.clone(),
            application_name: wire.application_name.clone(),
        }
    }

    /// Whether anything is known.
    #[must_use]
    pub fn is_known(&self) -> bool {
        *self != Self::default()
    }
}

/// Names a pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolKey {
    /// The process that opened them.
    pub process: ProcessKey,
    /// The server; port 0 where there were too many to tell them apart.
    pub remote: SocketAddr,
    /// What else they have in common.
    pub identity: Arc<Identity>,
}

/// The number of open connections of one identity, over time.
#[derive(Debug, Default)]
struct Part {
    history: History,
    last_opened: Option<Timestamp>,
}

/// The pools of one process to one server.
#[derive(Debug, Default)]
struct Pair {
    parts: BTreeMap<Arc<Identity>, Part>,
}

impl Pair {
    /// Whether connections of unknown identity may be counted in the only known pool. Connections
    /// older than the trace have lost their startup message and would otherwise be a pool of their
    /// own that never grows.
    fn is_one_pool(&self) -> bool {
        self.parts.keys().filter(|identity| identity.is_known()).count() <= 1
    }

    /// The identity of its only pool: the known one, if there is any.
    fn only_identity(&self) -> Arc<Identity> {
        self.parts.keys().find(|identity| identity.is_known()).cloned().unwrap_or_default()
    }

    fn open(&self) -> i64 {
        self.parts.values().map(|part| part.history.open_now()).sum()
    }
}

/// A pool's past, as detectors ask for it.
#[derive(Debug)]
pub struct Pool<'a> {
    /// Its name.
    pub key: PoolKey,
    parts: Vec<(&'a Arc<Identity>, &'a Part)>,
}

impl Pool<'_> {
    /// How many connections were open at `at`.
    #[must_use]
    pub fn open_at(&self, at: Timestamp) -> i64 {
        self.parts.iter().map(|(_, part)| part.history.open_at(at)).sum()
    }

    /// How many are open.
    #[must_use]
    pub fn open_now(&self) -> i64 {
        self.parts.iter().map(|(_, part)| part.history.open_now()).sum()
    }

    /// How many more are open now than at `at`; negative when there are fewer.
    #[must_use]
    pub fn growth_since(&self, at: Timestamp) -> i64 {
        self.open_now() - self.open_at(at)
    }

    /// When the latest connection was opened, whether or not it is still there.
    #[must_use]
    pub fn last_opened(&self) -> Option<Timestamp> {
        self.parts.iter().filter_map(|(_, part)| part.last_opened).max()
    }

    /// The identities that are counted in it: its own, and the unknown one where the process has no
    /// other pool to the server.
    pub fn identities(&self) -> impl Iterator<Item = &Arc<Identity>> {
        self.parts.iter().map(|&(identity, _)| identity)
    }
}

/// Is told what becomes of pools.
pub trait PoolObserver {
    /// The pools that a process has to a server are forgotten.
    fn pools_forgotten(&mut self, process: ProcessKey, remote: SocketAddr);
}

/// The pools of all connections.
#[derive(Debug, Default)]
pub struct Pools {
    pairs: BTreeMap<(ProcessKey, SocketAddr), Pair>,
    folded: u64,
    /// The limit is reached, and no pool could be forgotten.
    is_crowded: bool,
}

impl Pools {
    /// The pool that `key`'s connections are judged with.
    #[must_use]
    pub fn pool(&self, key: &PoolKey) -> Pool<'_> {
        let Some(pair) = self.pairs.get(&(key.process, key.remote)) else {
            return Pool { key: key.clone(), parts: Vec::new() };
        };
        if pair.is_one_pool() {
            return Pool {
                key: PoolKey { identity: pair.only_identity(), ..key.clone() },
                parts: pair.parts.iter().collect(),
            };
        }
        Pool {
            key: key.clone(),
            parts: pair.parts.get_key_value(&key.identity).into_iter().collect(),
        }
    }

    /// Whether connections with `key`'s identity are remembered.
    #[must_use]
    pub fn contains(&self, key: &PoolKey) -> bool {
        let pair = self.pairs.get(&(key.process, key.remote));
        pair.is_some_and(|pair| pair.parts.contains_key(&key.identity))
    }

    /// Every pool.
    pub(super) fn all(&self) -> impl Iterator<Item = Pool<'_>> {
        self.pairs.iter().flat_map(move |(&(process, remote), pair)| {
            let identities = if pair.is_one_pool() {
                vec![pair.only_identity()]
            } else {
                pair.parts.keys().cloned().collect()
            };
            identities
                .into_iter()
                .map(move |identity| self.pool(&PoolKey { process, remote, identity }))
        })
    }

    /// Adds a connection that has been open since `since`, or since before the trace, and returns
    /// the pool that it was put into.
    pub(super) fn add(
        &mut self,
        process: ProcessKey,
        remote: SocketAddr,
        identity: Identity,
        since: Option<Timestamp>,
        observer: &mut dyn PoolObserver,
    ) -> PoolKey {
        let remote = self.make_room(process, remote, observer);
        let since = history_from(remote, since);
        let pair = self.pairs.entry((process, remote)).or_default();
        let mut identity = Arc::new(identity);
        if pair.parts.len() >= MAX_IDENTITIES && !pair.parts.contains_key(&identity) {
            identity = Arc::default();
        }
        let part = pair.parts.entry(Arc::clone(&identity)).or_default();
        part.history.change(since, 1);
        part.last_opened = part.last_opened.max(since);
        PoolKey { process, remote, identity }
    }

    /// Removes a connection from `at` on. When `at` is the moment at which it was added, it leaves
    /// no trace.
    pub(super) fn remove(&mut self, key: &PoolKey, at: Option<Timestamp>) {
        let at = history_from(key.remote, at);
        let Some(pair) = self.pairs.get_mut(&(key.process, key.remote)) else { return };
        if let Some(part) = pair.parts.get_mut(&key.identity) {
            part.history.change(at, -1);
        }
        if self.is_crowded && pair.open() <= 0 {
            self.is_crowded = false;
        }
    }

    /// How many connections were put into a pool of several servers.
    pub(super) fn folded(&self) -> u64 {
        self.folded
    }

    /// The server to count a connection to `remote` under, within the limit.
    fn make_room(
        &mut self,
        process: ProcessKey,
        remote: SocketAddr,
        observer: &mut dyn PoolObserver,
    ) -> SocketAddr {
        if self.pairs.contains_key(&(process, remote)) {
            return remote;
        }
        if self.pairs.len() >= MAX_PAIRS && !self.is_crowded {
            self.keep(|pair| pair.open() > 0, observer);
            self.is_crowded = self.pairs.len() >= MAX_PAIRS;
        }
        if self.pairs.len() < MAX_PAIRS {
            return remote;
        }
        self.folded += 1;
        OTHER_SERVERS
    }

    /// Forgets pools that have been empty for long.
    pub(super) fn prune(&mut self, now: Timestamp, observer: &mut dyn PoolObserver) {
        self.is_crowded = false;
        let is_needed = |pair: &Pair| {
            let histories = pair.parts.values().map(|part| &part.history);
            let changed = histories.filter_map(History::changed_at).max();
            pair.open() > 0 || changed.is_some_and(|changed| now.since(changed) < KEEP_EMPTY)
        };
        self.keep(is_needed, observer);
    }

    fn keep(&mut self, is_needed: impl Fn(&Pair) -> bool, observer: &mut dyn PoolObserver) {
        self.pairs.retain(|&(process, remote), pair| {
            let is_needed = is_needed(pair);
            if !is_needed {
                observer.pools_forgotten(process, remote);
            }
            is_needed
        });
    }
}

/// From when on a connection counts. Several servers are no pool, so their connections count from
/// the beginning: none is accused because of what another server gained.
fn history_from(remote: SocketAddr, since: Option<Timestamp>) -> Option<Timestamp> {
    since.filter(|_| remote != OTHER_SERVERS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::{APP, secs};

    fn server(number: usize) -> SocketAddr {
        let number = u32::try_from(number).unwrap();
        SocketAddr::new(Ipv4Addr::from(0x0a00_0000 + number).into(), 5432)
    }

    fn add(pools: &mut Pools, number: usize, at: f64) -> PoolKey {
        pools.add(APP, server(number), Identity::default(), Some(secs(at)), &mut ())
    }

    #[test]
    fn empty_pools_make_room() {
        let mut pools = Pools::default();
        for number in 0..3 * MAX_PAIRS {
            let key = add(&mut pools, number, 1.0);
            pools.remove(&key, Some(secs(2.0)));
        }
        assert!(pools.pairs.len() <= MAX_PAIRS);
        assert_eq!(pools.folded(), 0);
    }

    #[test]
    fn too_many_servers_are_one_pool_without_growth() {
        let mut pools = Pools::default();
        let keys: Vec<_> = (0..2 * MAX_PAIRS).map(|n| add(&mut pools, n, 0.1 * n as f64)).collect();
        assert_eq!(pools.pairs.len(), MAX_PAIRS + 1);
        assert_eq!(pools.folded(), MAX_PAIRS as u64);
        assert_eq!(keys[0].remote, server(0));
        let last = keys.last().unwrap();
        assert_eq!(last.remote, OTHER_SERVERS);
        let pool = pools.pool(last);
        assert_eq!(pool.open_now(), MAX_PAIRS as i64);
        assert_eq!(pool.growth_since(secs(5000.0)), 0);
        for key in &keys {
            pools.remove(key, Some(secs(9000.0)));
        }
        pools.prune(secs(9700.0), &mut ());
        assert!(pools.pairs.is_empty());
    }
}
