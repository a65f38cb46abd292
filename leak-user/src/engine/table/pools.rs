//! Which connections belong together, and how many of them were open when.
//!
//! A pool is not visible from outside. What comes closest is the group of connections that one
//! process has to one server with the same user, database and application name.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::engine::table::history::History;
use crate::engine::table::member::{Member, WentOn};
use crate::model::{ProcessKey, StackId, Timestamp, Wire};

/// Most identities told apart for one process and server; the rest count as unknown.
const MAX_IDENTITIES: usize = 64;

/// Most pairs of process and server told apart; what comes on top is one group a process.
const MAX_FAMILIES: usize = 16_384;

/// Stands for the servers of a process that are not told apart.
const OTHER_SERVERS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// What is opened in this part of a pause is put down to the use before it; within bounds.
const BURST_SHARE: u32 = 8;
const LEAST_BURST: Duration = Duration::from_secs(1);
const MOST_BURST: Duration = Duration::from_secs(10);

/// How long the history of a group is kept when its last connection is gone.
const KEEP_EMPTY: Duration = Duration::from_secs(600);

/// What a startup message tells of the pool that sent it. Nothing, for a connection that is
/// encrypted or older than the trace.
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

/// Names a group of connections.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolKey {
    /// The process that opened them.
    pub process: ProcessKey,
    /// The server; port 0 where there were too many to tell them apart.
    pub remote: SocketAddr,
    /// What else they have in common.
    pub identity: Arc<Identity>,
}

/// All that one process has to one server.
#[derive(Debug, Default)]
struct Family {
    members: BTreeMap<Arc<Identity>, Member>,
}

impl Family {
    /// Whether connections of unknown identity may be taken for members of the only known pool:
    /// those that are older than the trace have lost their startup message, and would else be a
    /// pool of their own that never grows.
    fn is_one_pool(&self) -> bool {
        self.members.keys().filter(|identity| identity.is_known()).count() <= 1
    }

    fn open(&self) -> i64 {
        self.members.values().map(|member| member.history.open_now()).sum()
    }
}

/// A group's past, as detectors ask for it.
#[derive(Debug)]
pub struct Pool<'a> {
    /// Its name.
    pub key: PoolKey,
    members: Vec<&'a Member>,
}

impl Pool<'_> {
    /// How many were open at `at`.
    #[must_use]
    pub fn open_at(&self, at: Timestamp) -> i64 {
        self.members.iter().map(|member| member.history.open_at(at)).sum()
    }

    /// How many are open.
    #[must_use]
    pub fn open_now(&self) -> i64 {
        self.members.iter().map(|member| member.history.open_now()).sum()
    }

    /// How many more are open now than at `at`; negative when there are fewer.
    #[must_use]
    pub fn growth_since(&self, at: Timestamp) -> i64 {
        self.open_now() - self.open_at(at)
    }

    /// The longest silences of its connections that ended in a use although the group grew
    /// meanwhile, and the stack of the use before each: so long may a silence be that says nothing.
    pub fn pauses(&self) -> impl Iterator<Item = (Option<&StackId>, Duration)> {
        let pauses = self.members.iter().flat_map(|member| &member.pauses);
        pauses.map(|(after, &pause)| (after.as_ref(), pause))
    }

    /// When a thread last began a request on one of its connections.
    #[must_use]
    pub fn thread_seen(&self, tid: u32) -> Option<Timestamp> {
        self.members.iter().filter_map(|member| member.threads.get(&tid)).max().copied()
    }

    /// Some of the uses that were followed by others of the same connection.
    pub fn went_on(&self) -> impl Iterator<Item = &WentOn> {
        self.members.iter().flat_map(|member| &member.went_on)
    }

    /// How old the connections were that ended last.
    pub fn retired(&self) -> impl Iterator<Item = Duration> {
        self.members.iter().flat_map(|member| member.retired.iter().copied())
    }

    /// When the latest connection was opened, whether or not it is still there.
    #[must_use]
    pub fn last_opened(&self) -> Option<Timestamp> {
        self.members.iter().filter_map(|member| member.last_opened).max()
    }
}

/// The groups of all connections.
#[derive(Debug, Default)]
pub(super) struct Pools {
    families: BTreeMap<(ProcessKey, SocketAddr), Family>,
    folded: u64,
    /// There is no room, and making some was tried in vain.
    is_crowded: bool,
}

impl Pools {
    /// Adds a connection that is open since `since`, or since before the trace, and returns the
    /// group that it was put into.
    pub(super) fn add(
        &mut self,
        process: ProcessKey,
        remote: SocketAddr,
        identity: Identity,
        since: Option<Timestamp>,
    ) -> PoolKey {
        let remote = self.make_room(process, remote);
        let since = history_from(remote, since);
        let family = self.families.entry((process, remote)).or_default();
        let mut identity = Arc::new(identity);
        if family.members.len() >= MAX_IDENTITIES && !family.members.contains_key(&identity) {
            identity = Arc::default();
        }
        let member = family.members.entry(Arc::clone(&identity)).or_default();
        member.history.change(since, 1);
        member.last_opened = member.last_opened.max(since);
        PoolKey { process, remote, identity }
    }

    /// Learns that a connection was used at `until` that had been silent since `from`, after a use
    /// from this stack.
    pub(super) fn paused(
        &mut self,
        key: &PoolKey,
        from: Timestamp,
        until: Timestamp,
        after: Option<&StackId>,
    ) {
        let pause = until.since(from);
        let burst = (pause / BURST_SHARE).clamp(LEAST_BURST, MOST_BURST);
        if pause <= burst {
            return;
        }
        let pool = self.pool(key);
        let grew = pool.open_at(until) > pool.open_at(from.after(burst));
        if let Some(member) = self.member(key).filter(|_| grew) {
            member.paused(after, pause);
        }
    }

    /// Learns that a thread has begun a request.
    pub(super) fn used_by(&mut self, key: &PoolKey, tid: u32, at: Timestamp) {
        if let Some(member) = self.member(key) {
            member.used_by(tid, at);
        }
    }

    /// Learns that a connection went on to be used after this code had used it.
    pub(super) fn went_on(&mut self, key: &PoolKey, use_: WentOn) {
        if let Some(member) = self.member(key) {
            member.went_on(use_);
        }
    }

    /// Learns that a connection has ended.
    pub(super) fn retired(&mut self, key: &PoolKey, age: Duration) {
        if let Some(member) = self.member(key) {
            member.retired(age);
        }
    }

    fn member(&mut self, key: &PoolKey) -> Option<&mut Member> {
        self.families.get_mut(&(key.process, key.remote))?.members.get_mut(&key.identity)
    }

    /// Takes a connection out from `at` on; as if it had never been there when `at` is when it was
    /// added.
    pub(super) fn remove(&mut self, key: &PoolKey, at: Option<Timestamp>) {
        let at = history_from(key.remote, at);
        let Some(family) = self.families.get_mut(&(key.process, key.remote)) else { return };
        if let Some(member) = family.members.get_mut(&key.identity) {
            member.history.change(at, -1);
        }
        if self.is_crowded && family.open() <= 0 {
            self.is_crowded = false;
        }
    }

    /// How many connections were put into a group of servers that are not told apart.
    pub(super) fn folded(&self) -> u64 {
        self.folded
    }

    /// The server to count a connection to `remote` under, whose family there is room for.
    fn make_room(&mut self, process: ProcessKey, remote: SocketAddr) -> SocketAddr {
        if self.families.contains_key(&(process, remote)) {
            return remote;
        }
        if self.families.len() >= MAX_FAMILIES && !self.is_crowded {
            self.families.retain(|_, family| family.open() > 0);
            self.is_crowded = self.families.len() >= MAX_FAMILIES;
        }
        if self.families.len() < MAX_FAMILIES {
            return remote;
        }
        self.folded += 1;
        OTHER_SERVERS
    }

    /// Forgets groups that have been empty for long.
    pub(super) fn prune(&mut self, now: Timestamp) {
        self.is_crowded = false;
        self.families.retain(|_, family| {
            let histories = family.members.values().map(|member| &member.history);
            let changed = histories.filter_map(History::changed_at).max();
            family.open() > 0 || changed.is_some_and(|changed| now.since(changed) < KEEP_EMPTY)
        });
    }

    /// The stacks that are remembered of uses which others have followed.
    pub(super) fn stacks(&self) -> impl Iterator<Item = &StackId> {
        self.families.values().flat_map(|family| family.members.values()).flat_map(|member| {
            let went_on = member.went_on.iter().map(|use_| &use_.stack);
            went_on.chain(member.pauses.keys().flatten())
        })
    }

    /// The group that `key`'s connections are judged with.
    pub(super) fn pool(&self, key: &PoolKey) -> Pool<'_> {
        let Some(family) = self.families.get(&(key.process, key.remote)) else {
            return Pool { key: key.clone(), members: Vec::new() };
        };
        if family.is_one_pool() {
            return Pool {
                key: PoolKey { identity: one_identity(family), ..key.clone() },
                members: family.members.values().collect(),
            };
        }
        Pool { key: key.clone(), members: family.members.get(&key.identity).into_iter().collect() }
    }

    /// Every group.
    pub(super) fn all(&self) -> impl Iterator<Item = Pool<'_>> {
        self.families.iter().flat_map(move |(&(process, remote), family)| {
            let identities = if family.is_one_pool() {
                vec![one_identity(family)]
            } else {
                family.members.keys().cloned().collect()
            };
            identities
                .into_iter()
                .map(move |identity| self.pool(&PoolKey { process, remote, identity }))
        })
    }
}

/// From when on a connection counts. Servers that are not told apart are no pool, so theirs count
/// from ever: nothing that one of them gains is held against the others.
fn history_from(remote: SocketAddr, since: Option<Timestamp>) -> Option<Timestamp> {
    since.filter(|_| remote != OTHER_SERVERS)
}

/// The known identity of a family that is one pool, or the unknown one.
fn one_identity(family: &Family) -> Arc<Identity> {
    family.members.keys().find(|identity| identity.is_known()).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::table::testing::{APP, secs};

    fn server(number: usize) -> SocketAddr {
        let number = u32::try_from(number).unwrap();
        SocketAddr::new(Ipv4Addr::from(0x0a00_0000 + number).into(), 5432)
    }

    fn add(pools: &mut Pools, number: usize, at: f64) -> PoolKey {
        pools.add(APP, server(number), Identity::default(), Some(secs(at)))
    }

    #[test]
    fn empty_groups_make_room() {
        let mut pools = Pools::default();
        for number in 0..3 * MAX_FAMILIES {
            let key = add(&mut pools, number, 1.0);
            pools.remove(&key, Some(secs(2.0)));
        }
        assert!(pools.families.len() <= MAX_FAMILIES);
        assert_eq!(pools.folded(), 0);
    }

    #[test]
    fn too_many_servers_are_one_group_without_growth() {
        let mut pools = Pools::default();
        let keys: Vec<_> =
            (0..2 * MAX_FAMILIES).map(|n| add(&mut pools, n, 0.1 * n as f64)).collect();
        assert_eq!(pools.families.len(), MAX_FAMILIES + 1);
        assert_eq!(pools.folded(), MAX_FAMILIES as u64);
        assert_eq!(keys[0].remote, server(0));
        let last = keys.last().unwrap();
        assert_eq!(last.remote, OTHER_SERVERS);
        let pool = pools.pool(last);
        assert_eq!(pool.open_now(), MAX_FAMILIES as i64);
        assert_eq!(pool.growth_since(secs(5000.0)), 0);
        for key in &keys {
            pools.remove(key, Some(secs(9000.0)));
        }
        pools.prune(secs(9700.0));
        assert!(pools.families.is_empty());
    }
}
