//! Pools of connections, read from the memory of the programs that have them.
//!
//! A program's own bookkeeping knows what can otherwise only be inferred: how many connections are
//! in use, who waits for one, and which of them are back in the pool. The program is neither
//! stopped nor changed. So it may change under the reader: what was read counts only if it proves
//! to belong together, and is not known otherwise. Layouts are recognised by what they have to look
//! like, never assumed.
//!
//! To add a kind of pool, write a file with a [`Kind`] and enter it in [`KINDS`].
//!
//! | what | most |
//! |---|---|
//! | goroutines that are looked at | 100,000 |
//! | pools of one process | 64 |
//! | connections of one pool | 10,000 |
//! | time for the pools of one process | 100 ms |

mod database_sql;
mod go_map;
mod go_sessions;
mod go_values;
mod kind;
mod memory;
mod pgxpool;
pub(in crate::sources) mod sockets;
mod steady;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use leak_stacks::{GoProgram, Goroutine, Resolver};

use crate::clock;
use crate::model::pools::PoolNumbers;
use crate::model::{ProcessKey, Timestamp, WireState};
use go_values::GoValues;
use kind::{Kind, KindPool};
use sockets::Descriptors;

/// Most goroutines that are looked at for pools.
const MAX_GOROUTINES: usize = 100_000;
/// Most processes whose pools are remembered.
const MAX_PROCESSES: usize = 1024;
/// Most pools of one process.
const MAX_POOLS: usize = 64;
/// How long the pools of one process are read.
const TIME_LIMIT: Duration = Duration::from_millis(100);

/// The kinds of pools that are known.
const KINDS: [&dyn Kind; 2] = [&database_sql::DatabaseSql, &pgxpool::PgxPool];

/// A pool, with its connections by the inodes of their sockets.
#[derive(Debug, PartialEq, Eq)]
pub struct FoundPool {
    /// Whose it is.
    pub kind: &'static str,
    /// Where it is.
    pub address: u64,
    /// Its numbers, when they were had.
    pub numbers: Option<PoolNumbers>,
    /// Inodes of the sockets of its connections, and whether each is checked out.
    pub sockets: Vec<(u64, bool)>,
    /// Inodes of the sockets of those of which the driver has told where the session stands.
    pub sessions: Vec<(u64, WireState)>,
}

/// The pools of a process at one moment.
#[derive(Debug, PartialEq, Eq)]
pub struct ProcessPools {
    /// When they began to be read.
    pub began: Timestamp,
    /// The pools.
    pub pools: Vec<FoundPool>,
}

/// Reads pools, and remembers where they are: the goroutine that shows it may be at work.
#[derive(Default)]
pub struct PoolReader {
    known: HashMap<ProcessKey, Vec<Whereabouts>>,
}

/// Where a pool is, and of which kind it is.
type Whereabouts = (u64, &'static dyn Kind);

impl PoolReader {
    /// Reads the pools of a process; `None` when its memory cannot be read, or is not understood.
    pub fn read(&mut self, resolver: &mut Resolver, process: ProcessKey) -> Option<ProcessPools> {
        let began = clock::now();
        let known = self.known.remove(&process).unwrap_or_default();
        let program = resolver.go_program(process, began)?;
        let goroutines = program.goroutines(MAX_GOROUTINES)?;
        let open = Descriptors::of(process)?;
        let values = GoValues::new(&program);
        let places = places(&program, &values, &goroutines.all, &known);
        let until = Instant::now() + TIME_LIMIT;
        let mut pools = Vec::new();
        for &(address, kind) in &places {
            if Instant::now() >= until {
                break;
            }
            let KindPool { numbers, descriptors, sessions } = kind.read(&values, address, until);
            let sockets = open.sockets(descriptors);
            let sessions = open.sockets(sessions);
            pools.push(FoundPool { kind: kind.name(), address, numbers, sockets, sessions });
        }
        if !places.is_empty() && self.known.len() < MAX_PROCESSES {
            self.known.insert(process, places);
        }
        Some(ProcessPools { began, pools })
    }

    /// Forgets a process that has exited.
    pub fn forget(&mut self, process: ProcessKey) {
        self.known.remove(&process);
    }
}

/// Where a program has pools. Each has a goroutine; of those that run, the stack cannot be read, so
/// that their pools may be among the `known` ones.
fn places(
    program: &GoProgram,
    values: &GoValues<'_>,
    goroutines: &[Goroutine],
    known: &[Whereabouts],
) -> Vec<Whereabouts> {
    let mut places: Vec<Whereabouts> = Vec::new();
    let add = |places: &mut Vec<Whereabouts>, address: u64, kind| {
        if places.len() < MAX_POOLS && places.iter().all(|(known, _)| *known != address) {
            places.push((address, kind));
        }
    };
    let mut hidden = false;
    for goroutine in goroutines {
        let Some(kind) = kind_of(values, goroutine) else { continue };
        let Some(stack) = program.stack(goroutine) else {
            hidden = true;
            continue;
        };
        let words: Vec<u64> = memory::words(&stack.bytes).collect();
        let found = kind.find(values, &words);
        hidden |= found.is_empty();
        found.into_iter().for_each(|address| add(&mut places, address, kind));
    }
    if hidden {
        for &(address, kind) in known {
            if !kind.find(values, &[address]).is_empty() {
                add(&mut places, address, kind);
            }
        }
    }
    places
}

fn kind_of(values: &GoValues<'_>, goroutine: &Goroutine) -> Option<&'static dyn Kind> {
    let creator = values.creator(goroutine.created_at?)?;
    KINDS.into_iter().find(|kind| kind.has_goroutine_of(&creator))
}
