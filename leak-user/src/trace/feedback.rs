//! The way back: what the engine and resolved stacks have to say to the sources.
//!
//! Facts go one way, from the sources to the engine. Whatever goes the other way has its name here,
//! and nothing else in this crate calls what these functions call:
//!
//! | what goes back | to | why |
//! |---|---|---|
//! | [`set_profile`], [`copy_more`] | kernel programs | how to copy a process's stacks, as its binaries and stacks have shown |
//! | [`stacks_to_fetch`] | flight recorder | a stack is fetched once its connection has fallen silent |
//! | [`processes_with_pools`] | resolver | whose pools are read in their memory |
//! | [`states_to_read`] | resolver | which sessions' states their drivers are asked for |
//! | [`statements_to_find`] | resolver | which code has a statement is looked up once nobody was seen to send it |
//! | [`keep_known`] | kernel programs' table | what the engine had no room for is told again |
//! | [`forget_process`] | kernel programs, resolver | a process is gone, and its PID may be used again |
//! | [`known_connections`], [`threads_to_check`], [`processes_to_check`] | sock_diag, procfs | which are looked for |
//! | [`threads_to_look_at`] | resolver | whose stacks now tell who waits for a connection, and who holds one |
//! | [`name_addresses`] | Kubernetes | which servers' addresses are to be named |

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;

use leak_stacks::StackProfile;

use crate::engine::Engine;
use crate::engine::fate::User;
use crate::model::{ConnectionId, ProcessKey, Timestamp, Whereabouts};
use crate::sources::drivers::WantedState;
use crate::sources::kernel::Tracer;
use crate::sources::kubernetes::Pods;
use crate::trace::look::Wanted;
use crate::trace::stack_requests::StackRequests;

/// When a copy of a stack was too short, this many times as much is copied from then on.
const STACK_GROWTH: u32 = 2;

/// Stacks of connections in use to fetch each interval, of one group and in all: what the others do
/// shows what those that lose connections do not.
const SAMPLES_OF_GROUP: usize = 8;
const MAX_SAMPLES: usize = 128;
/// Most statements that are looked for at once in one program.
const MAX_SEARCHED: usize = 64;

/// Stacks of connections to full servers to fetch each interval.
const MAX_HOLDERS: usize = 512;
/// Most users of silent connections of one process that are looked for.
const MAX_USERS: usize = 256;

/// Most sessions of one process whose driver is asked for their states in an interval.
const MAX_STATES: usize = 4096;

/// Most processes whose pools are read, or whose drivers are asked, in an interval.
const MAX_PROCESSES_WITH_POOLS: usize = 512;

/// Has the kernel programs copy a process's stacks as its binaries need it.
pub(super) fn set_profile(tracer: &mut Tracer, process: ProcessKey, profile: StackProfile) {
    tracer.set_profile(process.pid, profile);
}

/// Has the kernel programs copy more of a process's stacks than the `wanted` bytes that were too
/// few.
pub(super) fn copy_more(tracer: &mut Tracer, process: ProcessKey, wanted: u32) {
    tracer.set_stack_bytes(process.pid, wanted.saturating_mul(STACK_GROWTH));
}

/// The connections whose latest request's stack is to be fetched, with the request: those on their
/// way to being called silent, some that are in use, and those that take the slots of full servers.
pub(super) fn stacks_to_fetch(engine: &Engine, now: Timestamp) -> Vec<(ConnectionId, u64)> {
    let (table, thresholds) = (engine.table(), engine.thresholds());
    let idle_for = thresholds.idle_in_transaction_after() / 2;
    let silent = table.wanting_stack(thresholds.silent_after / 2, idle_for, now);
    let samples = table.wanting_sample(now.before(thresholds.interval), SAMPLES_OF_GROUP);
    let holders = table.wanting_holder(MAX_HOLDERS);
    let wanted = silent.chain(samples.into_iter().take(MAX_SAMPLES)).chain(holders);
    // One may be wanted for several reasons.
    wanted.collect::<BTreeMap<_, _>>().into_iter().collect()
}

/// Statements of whose code nothing is known, by the process in whose program they are to be looked
/// for.
pub(super) fn statements_to_find(engine: &Engine) -> HashMap<ProcessKey, Vec<String>> {
    let mut wanted: HashMap<ProcessKey, BTreeSet<&str>> = HashMap::new();
    for (process, statement) in engine.unknown_statements() {
        let its = wanted.entry(process).or_default();
        if its.len() < MAX_SEARCHED {
            its.insert(statement);
        }
    }
    let owned = |statements: BTreeSet<&str>| statements.into_iter().map(str::to_owned).collect();
    wanted.into_iter().map(|(process, statements)| (process, owned(statements))).collect()
}

/// The processes whose pools are to be read: those with connections, up to a limit.
pub(super) fn processes_with_pools(engine: &Engine) -> impl Iterator<Item = ProcessKey> {
    let opened = engine.table().connections().map(|connection| connection.process);
    let processes: BTreeSet<_> = opened.collect();
    processes.into_iter().take(MAX_PROCESSES_WITH_POOLS)
}

/// The connections at rest of which nobody has told where their session stands, by the process that
/// alone holds each: its driver may know.
pub(super) fn states_to_read(
    engine: &Engine,
    now: Timestamp,
) -> BTreeMap<ProcessKey, Vec<WantedState>> {
    let mut wanted: BTreeMap<ProcessKey, Vec<WantedState>> = BTreeMap::new();
    for connection in engine.table().wanting_state(now) {
        let Some(process) = connection.only_holder() else { continue };
        let is_known = wanted.contains_key(&process);
        if is_known || wanted.len() < MAX_PROCESSES_WITH_POOLS {
            let its = wanted.entry(process).or_default();
            let local = connection.endpoints.local;
            let local = SocketAddr::new(local.ip().to_canonical(), local.port());
            if its.len() < MAX_STATES {
                its.push((connection.id, local));
            }
        }
    }
    wanted
}

/// Keeps those of `unchanged` connections that the engine knows. The others count as changed at the
/// next reading: the engine may have room for them then.
pub(super) fn keep_known(engine: &Engine, tracer: &mut Tracer, unchanged: &mut Vec<ConnectionId>) {
    unchanged.retain(|&id| {
        engine.table().get(id).is_some() || {
            tracer.forget_connection(id);
            false
        }
    });
}

/// Drops what kernel programs and resolver know of a process that is gone.
pub(super) fn forget_process(tracer: &mut Tracer, stacks: &mut StackRequests, process: ProcessKey) {
    stacks.forget(process);
    tracer.forget_process(process.pid);
}

/// The connections that an inventory is to list whoever holds them.
pub(super) fn known_connections(engine: &Engine) -> HashSet<ConnectionId> {
    engine.table().connections().map(|connection| connection.id).collect()
}

/// Connections that only one thread has used and that are on their way to being called silent: each
/// with its latest request, and that thread's process and thread number.
pub(super) fn threads_to_check(
    engine: &Engine,
    now: Timestamp,
) -> impl Iterator<Item = (ConnectionId, u64, (u32, u32))> {
    engine.bound_to_threads(engine.thresholds().silent_after / 2, now)
}

/// The threads and goroutines whose stacks are wanted as they are now, by process: those that have
/// used a connection that is on its way to being called silent, and everybody's where a pool may be
/// exhausted, or `everywhere`.
pub(super) fn threads_to_look_at(
    engine: &Engine,
    now: Timestamp,
    everywhere: bool,
) -> BTreeMap<ProcessKey, Wanted> {
    let silent_for = engine.thresholds().silent_after / 2;
    let mut wanted: BTreeMap<ProcessKey, Wanted> = BTreeMap::new();
    for connection in engine.table().connections() {
        let is_silent = connection.silent_for(now) >= silent_for;
        if !is_silent && !everywhere {
            continue;
        }
        let wanted = wanted.entry(connection.process).or_default();
        let user = User::of(connection).filter(|user| {
            let (User::Thread(pid, _) | User::Goroutine(pid, _)) = *user;
            is_silent && pid == connection.process.pid
        });
        let has_ended = connection.callers.user_seen == Some(Whereabouts::Ended);
        if let Some(user) = user.filter(|_| !has_ended && wanted.users.len() < MAX_USERS) {
            wanted.users.push((connection.id, connection.requests.count, user));
        }
    }
    let at_rest = engine.table().processes_at_rest(silent_for, now);
    for (process, wanted) in &mut wanted {
        wanted.waiters = everywhere || at_rest.contains(process);
    }
    wanted.retain(|_, wanted| wanted.waiters || !wanted.users.is_empty());
    wanted
}

/// Processes whose exit matters: those with open findings, and those of `met` that are not
/// `in_use`. All others have connections, so they live.
pub(super) fn processes_to_check(
    engine: &Engine,
    in_use: &HashSet<ProcessKey>,
    met: &HashSet<ProcessKey>,
) -> BTreeSet<ProcessKey> {
    let mut processes = engine.accused();
    processes.extend(met.difference(in_use));
    processes
}

/// Has Kubernetes name the servers that there are connections to. Loopback addresses have no owner.
pub(super) fn name_addresses(engine: &Engine, pods: &Pods) {
    let remotes = engine.table().connections().map(|open| open.endpoints.remote.ip());
    let addresses = remotes.map(|address| address.to_canonical());
    pods.want(addresses.filter(|address| !address.is_loopback()));
}
