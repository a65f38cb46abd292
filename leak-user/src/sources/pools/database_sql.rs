//! Go's `database/sql`.
//!
//! Each `sql.DB` has a goroutine that opens connections for it, and is on its stack. The layouts
//! are those of `src/database/sql/sql.go`; they differ by how waiting callers are kept, before and
//! since Go 1.23. Which it is shows in the channel that the goroutine waits at: no other has so
//! many places.

use std::collections::HashSet;
use std::time::Instant;

use crate::model::WireState;
use crate::model::pools::PoolNumbers;
use crate::sources::pools::go_map::keys;
use crate::sources::pools::go_sessions;
use crate::sources::pools::go_values::GoValues;
use crate::sources::pools::kind::{Kind, KindPool, MAX_CONNECTIONS};
use crate::sources::pools::steady::{self, Located};

/// Words of a `sql.DB` up to the number of waits, and some more.
const WORDS: usize = 26;
/// Places in the channel that callers use who want a connection opened.
const OPENER_PLACES: u64 = 1_000_000;
/// No pool has as many connections or callers.
const MAX_COUNT: u64 = 1 << 32;

/// Words of a `sql.DB` that no release has moved.
const WAITED: usize = 0;
const CONNECTOR: usize = 1;
const MUTEX: usize = 4;
const FREE: usize = 5;
/// The bit of a mutex that says that somebody holds it.
const LOCKED: u64 = 1;

/// Words of a `sql.driverConn`: its pool, the driver's connection, and flags.
const ITS_POOL: usize = 0;
const DRIVER: usize = 5;
const CLOSED: usize = 7;
const IN_USE: usize = 9;
const CONNECTION_WORDS: usize = 10;

pub(super) struct DatabaseSql;

impl Kind for DatabaseSql {
    fn name(&self) -> &'static str {
        "database/sql"
    }

    fn has_goroutine_of(&self, creator: &str) -> bool {
        creator == "database/sql.OpenDB"
    }

    fn find(&self, values: &GoValues<'_>, stack: &[u64]) -> Vec<u64> {
        let mut looked_at = HashSet::new();
        let is_new = |address: &&u64| looked_at.insert(**address);
        let pools = stack.iter().filter(is_new).filter(|at| Words::read(values, **at).is_some());
        pools.copied().collect()
    }

    fn read(&self, values: &GoValues<'_>, address: u64, until: Instant) -> KindPool {
        let numbers = at_rest(values, address, until).and_then(|words| words.numbers(values));
        let descriptors = connections(values, address, until).unwrap_or_default();
        let sessions = sessions(values, address, until).unwrap_or_default();
        KindPool { numbers, descriptors, sessions }
    }
}

/// Where a release keeps what is not in the same place in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Before Go 1.23 callers who wait are in a map.
    Map,
    /// Since then they are in a slice.
    Slice,
}

impl Layout {
    /// How much further down the fields are that follow the waiting callers.
    fn shift(self) -> usize {
        usize::from(self == Self::Slice)
    }
}

/// A `sql.DB`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Words {
    words: [u64; WORDS],
    layout: Layout,
}

impl Words {
    /// The one at `address`; `None` when there is none.
    fn read(values: &GoValues<'_>, address: u64) -> Option<Self> {
        let words = values.array::<WORDS>(address)?;
        let is_opener = |layout: &Layout| {
            let channel = words[11 + layout.shift()];
            // Number of elements, places, buffer, size of an element and more.
            let channel = values.array::<4>(channel);
            channel.is_some_and(|[count, places, _, size]| {
                count <= places && places == OPENER_PLACES && size & 0xffff == 0
            })
        };
        let mut layouts = [Layout::Map, Layout::Slice].into_iter().filter(is_opener);
        let layout = layouts.next().filter(|_| layouts.next().is_none())?;
        let connects = values.first_method(words[CONNECTOR])?.ends_with(".Connect");
        let is_closed = words[12 + layout.shift()] & 0xff != 0;
        (connects && !is_closed).then_some(Self { words, layout })
    }

    fn field(&self, in_map_layout: usize) -> u64 {
        self.words[in_map_layout + self.layout.shift()]
    }

    fn is_locked(&self) -> bool {
        self.words[MUTEX] & LOCKED != 0
    }

    /// Its numbers, if they can be those of a pool.
    fn numbers(&self, values: &GoValues<'_>) -> Option<PoolNumbers> {
        let (idle, capacity) = (self.words[FREE + 1], self.words[FREE + 2]);
        let open = self.field(10);
        let (most_idle, max_open) = (self.field(15), self.field(16).cast_signed());
        let waiting = match self.layout {
            Layout::Map => values.word(self.words[8])?,
            Layout::Slice => self.words[9],
        };
        let (wait_count, waited) = (self.field(20), self.words[WAITED]);
        let is_slice = idle <= capacity && (capacity == 0 || self.words[FREE] != 0);
        let counts = [idle, capacity, open, waiting, max_open.unsigned_abs()];
        let is_pool = is_slice
            && idle <= open
            && counts.iter().all(|count| *count < MAX_COUNT)
            && most_idle.cast_signed().unsigned_abs() < MAX_COUNT
            && wait_count.cast_signed() >= 0
            && waited.cast_signed() >= 0;
        is_pool.then_some(PoolNumbers {
            open,
            idle,
            max_open: u64::try_from(max_open).ok().filter(|most| *most > 0),
            waiting: Some(waiting),
            wait_count: Some(wait_count),
            wait_nanoseconds: Some(waited),
        })
    }
}

/// The pool at a moment when nobody changes it: not locked, and the same in two readings.
fn at_rest(values: &GoValues<'_>, address: u64, until: Instant) -> Option<Words> {
    let read = || {
        let words = Words::read(values, address)?;
        let waiting = words.numbers(values)?.waiting;
        (!words.is_locked()).then_some((words, waiting))
    };
    steady::twice(until, read).map(|(words, _)| words)
}

/// Descriptors of the pool's connections, and whether each is checked out.
fn connections(values: &GoValues<'_>, address: u64, until: Instant) -> Option<Vec<(u64, bool)>> {
    let read = || read_connections(values, address, until);
    Some(steady::agreed(read()?, read()?))
}

/// Where the sessions of the pool's connections stand, as far as two readings say the same.
fn sessions(values: &GoValues<'_>, address: u64, until: Instant) -> Option<Vec<(u64, WireState)>> {
    let connections = read_connections(values, address, until)?;
    let session = |(connection, (descriptor, _)): (u64, (u64, bool))| {
        let driver = connection.checked_add(8 * DRIVER as u64)?;
        let [first, second] = [(); 2].map(|()| go_sessions::state(values, driver));
        Some((descriptor, first.filter(|_| first == second)?))
    };
    Some(connections.into_iter().filter_map(session).collect())
}

/// Each of the pool's connections: where it is, with its descriptor and whether it is checked out.
fn read_connections(values: &GoValues<'_>, address: u64, until: Instant) -> Option<Vec<Located>> {
    let words = Words::read(values, address)?;
    let idle = usize::try_from(words.words[FREE + 1]).ok().filter(|n| *n <= MAX_CONNECTIONS)?;
    let idle: HashSet<u64> = match idle {
        0 => HashSet::new(),
        _ => values.words(words.words[FREE], idle)?.into_iter().collect(),
    };
    let is_connection = |name: &str| name == "database/sql.(*driverConn).finalClose";
    let is_key = |(table, value): (u64, u64)| {
        let name = values.first_method(table);
        let is_known =
            |name: &str| is_connection(name) || name == "database/sql.(*Stmt).finalClose";
        value != 0 && name.is_some_and(|name| is_known(&name))
    };
    // What has to be closed before the pool is: statements and connections.
    let all = keys(values, words.field(13), 2 * MAX_CONNECTIONS, is_key)?;
    let mut found = Vec::new();
    for (table, connection) in all {
        if Instant::now() >= until {
            break;
        }
        if !values.first_method(table).is_some_and(|name| is_connection(&name)) {
            continue;
        }
        let state = || {
            let words = values.array::<CONNECTION_WORDS>(connection)?;
            let closed = words[CLOSED] & 0xff00 != 0;
            let in_use = match words[IN_USE] & 0xff {
                0 => false,
                1 => true,
                _ => return None,
            };
            // Both of the pool's books must say the same.
            let is_it = words[ITS_POOL] == address && !closed;
            let is_consistent = in_use != idle.contains(&connection);
            let descriptor = values.descriptor(words.get(DRIVER + 1).copied()?)?;
            (is_it && is_consistent).then_some((descriptor, in_use))
        };
        found.extend(state().map(|state| (connection, state)));
    }
    Some(found)
}
