//! pgx's own pool, `pgxpool`, of its releases 4 and 5.
//!
//! Each pool has a goroutine that checks its health and has the `pgxpool.Pool` on its stack. Its
//! connections are kept by another package, `puddle`, whose pool is one of the first words of that
//! one. The layouts are those of `pool.go` of puddle 1, which pgx 4 uses, and of puddle 2 since
//! 2.1, which pgx 5 uses. Which it is shows in what limits the callers: a condition, or a semaphore
//! as large as the pool.

use std::collections::HashSet;
use std::time::Instant;

use crate::model::WireState;
use crate::model::pools::PoolNumbers;
use crate::sources::pools::go_sessions;
use crate::sources::pools::go_values::GoValues;
use crate::sources::pools::kind::{Kind, KindPool, MAX_CONNECTIONS};
use crate::sources::pools::steady::{self, Located};

/// In which words of a `pgxpool.Pool` that of puddle may be: releases differ by what they count.
const OUTER_WORDS: usize = 6;
/// Words of a pool of puddle up to its number of callers who gave up.
const WORDS: usize = 15;
/// Words of one of its resources.
const RESOURCE_WORDS: usize = 8;
/// The bit of a mutex that says that somebody holds it.
const LOCKED: u64 = 1;
/// No pool has as many callers.
const MAX_WAITING: u64 = 1 << 24;

/// Words of a pool that are in the same place in both layouts: two functions, and the limit.
const CONSTRUCTOR: usize = 8;
const DESTRUCTOR: usize = 9;
const MAX_SIZE: usize = 10;
/// How often callers gave up, in the old layout.
const GAVE_UP: usize = 14;
/// What a resource is for, in both.
const STATUS: usize = 7;

pub(super) struct PgxPool;

impl Kind for PgxPool {
    fn name(&self) -> &'static str {
        "pgxpool"
    }

    fn has_goroutine_of(&self, creator: &str) -> bool {
        creator.ends_with("github.com/jackc/pgx/v4/pgxpool.ConnectConfig")
            || creator.ends_with("github.com/jackc/pgx/v5/pgxpool.NewWithConfig")
    }

    fn find(&self, values: &GoValues<'_>, stack: &[u64]) -> Vec<u64> {
        let mut looked_at = HashSet::new();
        let mut found = Vec::new();
        for &word in stack {
            let within = values.array::<OUTER_WORDS>(word).unwrap_or_default();
            for address in [word].into_iter().chain(within) {
                if looked_at.insert(address) && Pool::read(values, address).is_some() {
                    found.push(address);
                }
            }
        }
        found
    }

    fn read(&self, values: &GoValues<'_>, address: u64, until: Instant) -> KindPool {
        let read = || Pool::read(values, address)?.with_resources(values, address, until);
        let numbers = steady::twice(until, read).and_then(|(pool, all)| pool.numbers(&all));
        let connections = || {
            let (pool, all) = read()?;
            Some(pool.connections(values, &all, until))
        };
        let descriptors = match (connections(), connections()) {
            (Some(before), Some(after)) => steady::agreed(before, after),
            _ => Vec::new(),
        };
        let sessions = read().map(|(_, all)| sessions(values, &all, until));
        KindPool { numbers, descriptors, sessions: sessions.unwrap_or_default() }
    }
}

/// How a release keeps a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Puddle 1: callers wait for a condition.
    Condition,
    /// Puddle 2: callers wait for a semaphore.
    Semaphore,
}

impl Layout {
    /// Where the list of all resources is: address, length, capacity.
    fn list(self) -> usize {
        match self {
            Self::Condition => 2,
            Self::Semaphore => 4,
        }
    }

    /// Where a resource has the address of its pool: behind its value, an interface or an address.
    fn owner(self) -> usize {
        match self {
            Self::Condition => 2,
            Self::Semaphore => 1,
        }
    }
}

/// What a resource is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Constructing,
    Idle,
    Acquired,
}

/// One of a pool's resources: where it is, where its connection is, and what it is for.
type Resource = (u64, u64, Status);

/// A pool of puddle, without its resources.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pool {
    words: [u64; WORDS],
    layout: Layout,
    is_locked: bool,
    waiting: Option<u64>,
}

impl Pool {
    /// The one at `address`; `None` when there is none.
    fn read(values: &GoValues<'_>, address: u64) -> Option<Self> {
        let words = values.array::<WORDS>(address)?;
        if !(1..=i32::MAX as u64).contains(&max_size(&words)) {
            return None;
        }
        // Both are of the pool around it.
        for function in [words[CONSTRUCTOR], words[DESTRUCTOR]] {
            let code = values.word(function)?;
            let name = values.creator(code)?;
            if !name.contains("github.com/jackc/pgx/v") || !name.contains("/pgxpool.") {
                return None;
            }
        }
        let (layout, lock, waiting) = match (condition(values, &words), semaphore(values, &words)) {
            (Some((lock, waiting)), None) => (Layout::Condition, lock, waiting),
            (None, Some(waiting)) => (Layout::Semaphore, words[0], Some(waiting)),
            _ => return None,
        };
        let [first, length, capacity] = *words.get(layout.list()..)?.first_chunk()?;
        let is_list = length <= capacity
            && capacity <= MAX_CONNECTIONS as u64
            && (capacity == 0 || first != 0);
        is_list.then_some(Self { words, layout, is_locked: lock & LOCKED != 0, waiting })
    }

    /// The same with its resources, if nobody was changing it.
    fn with_resources(
        self,
        values: &GoValues<'_>,
        address: u64,
        until: Instant,
    ) -> Option<(Self, Vec<Resource>)> {
        let [first, length, _] = *self.words.get(self.layout.list()..)?.first_chunk()?;
        let resources = match usize::try_from(length).ok()? {
            0 => Vec::new(),
            length => values.words(first, length)?,
        };
        let mut all = Vec::with_capacity(resources.len());
        for resource in resources {
            if Instant::now() >= until {
                return None;
            }
            let words = values.array::<RESOURCE_WORDS>(resource)?;
            let owner = self.layout.owner();
            let value = words[owner - 1];
            let status = match (words[STATUS] & 0xff, value) {
                (0, 0) => Status::Constructing,
                (1, 1..) => Status::Idle,
                (2, 1..) => Status::Acquired,
                _ => return None,
            };
            if words[owner] != address {
                return None;
            }
            all.push((resource, value, status));
        }
        let are_different =
            all.iter().map(|(at, ..)| at).collect::<HashSet<_>>().len() == all.len();
        (are_different && !self.is_locked).then_some((self, all))
    }

    /// Its numbers, if both of its books say the same.
    fn numbers(&self, all: &[Resource]) -> Option<PoolNumbers> {
        let idle = all.iter().filter(|(.., status)| *status == Status::Idle).count() as u64;
        let is_same = match self.layout {
            Layout::Condition => self.words[6] == idle,
            Layout::Semaphore => true,
        };
        // It counts and times those who wait for a connection to be opened, too: other numbers.
        is_same.then_some(PoolNumbers {
            open: all.len() as u64,
            idle,
            max_open: Some(max_size(&self.words)),
            waiting: self.waiting,
            wait_count: None,
            wait_nanoseconds: None,
        })
    }

    fn connections(&self, values: &GoValues<'_>, all: &[Resource], until: Instant) -> Vec<Located> {
        let located = |&(resource, value, status): &Resource| {
            let descriptor = values.descriptor(value)?;
            Some((resource, (descriptor, status == Status::Acquired)))
        };
        let made = all.iter().filter(|(.., status)| *status != Status::Constructing);
        made.take_while(|_| Instant::now() < until).filter_map(located).collect()
    }
}

/// Where the sessions of the pool's connections stand, as far as two readings say the same.
fn sessions(values: &GoValues<'_>, all: &[Resource], until: Instant) -> Vec<(u64, WireState)> {
    let session = |&(_, value, _): &Resource| {
        let [first, second] = [(); 2].map(|()| go_sessions::of_pgx(values, value));
        Some((values.descriptor(value)?, first.filter(|_| first == second)?))
    };
    let made = all.iter().filter(|(.., status)| *status != Status::Constructing);
    made.take_while(|_| Instant::now() < until).filter_map(session).collect()
}

fn max_size(words: &[u64; WORDS]) -> u64 {
    words[MAX_SIZE] & u64::from(u32::MAX)
}

/// The lock of the condition at which callers of a pool wait, and how many do, if that is known.
fn condition(values: &GoValues<'_>, words: &[u64; WORDS]) -> Option<(u64, Option<u64>)> {
    // The lock's table of methods and address, and how many have begun to wait and been woken.
    let [table, lock, tickets] = values.array::<3>(words[0])?;
    if &*values.first_method(table)? != "sync.(*Mutex).Lock" {
        return None;
    }
    let waiting = tickets.wrapping_sub(tickets >> 32) & u64::from(u32::MAX);
    if waiting >= MAX_WAITING {
        return None;
    }
    // Some of those who gave up keep their place in the queue.
    let waiting = (waiting == 0 || words[GAVE_UP] == 0).then_some(waiting);
    Some((values.word(lock)?, waiting))
}

/// How many callers wait for the semaphore of a pool, which has as many places as the pool.
fn semaphore(values: &GoValues<'_>, words: &[u64; WORDS]) -> Option<u64> {
    // Size, taken, a lock, and a list: its root, an element without a list and value, and its
    // length. One that was never used has no ends.
    let list = words[1].checked_add(24)?;
    let [size, taken, _, next, last, root @ .., waiting] = values.array::<9>(words[1])?;
    let is_list = match waiting {
        0 => next == last && (next == 0 || next == list),
        _ => ![0, list].contains(&next) && ![0, list].contains(&last) && waiting < MAX_WAITING,
    };
    (size == max_size(words) && taken <= size && is_list && root == [0; 3]).then_some(waiting)
}

#[cfg(test)]
pub(super) mod tests;
