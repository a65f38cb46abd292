//! What the drivers of programs say of their sessions, read from the programs' memory.
//!
//! Under TLS nothing on the wire tells whether a session is in a transaction, but the driver knows.
//! The program is neither stopped nor changed, nothing is read while a connection is in use, and
//! nothing is believed that does not prove itself: a structure counts as a connection only if it
//! has the descriptor and the addresses of one, and if two readings agree.
//!
//! | driver | how its connections are found |
//! |---|---|
//! | libpq, whoever calls it | among the words of the stacks that used them, else by a search of the allocated memory |
//!
//! Go's drivers are asked through the pools that have their connections, see
//! [`pools`](crate::sources::pools).
//!
//! | what | most |
//! |---|---|
//! | processes | 1,024 |
//! | connections of one process that are remembered | 16,384 |
//! | one search in an interval | 256 MiB, 200 ms; it goes on in the next one, and begins anew after 100 times as long as its last part took |

mod accessor;
mod libpq;
mod scan;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use leak_stacks::{ProcessMemory, RawStack, Resolver};

use crate::clock;
use crate::model::{ConnectionId, ProcessKey, Timestamp, WireState};
use crate::sources::pools::sockets::Descriptors;
use libpq::{ACCESSORS, Known, LIBRARY, Libpq, SIZE};
use scan::{allocated, object, search};

/// Most processes that are remembered.
const MAX_PROCESSES: usize = 1024;
/// Most connections of one process whose places are remembered.
const MAX_PLACES: usize = 16_384;
/// After a search, this many times as long as its last part took passes before the next one.
const PAUSE: u32 = 100;
/// How long it takes at most until a process is looked at again that had no driver.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
const SHORTEST_PAUSE: Duration = Duration::from_secs(2);

/// Takes five accessors, each with its length before it, and a connection.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(data: &[u8]) {
    let mut rest = data;
    let mut code = [const { Vec::new() }; ACCESSORS.len()];
    for code in &mut code {
        let Some((&length, after)) = rest.split_first() else { return };
        let Some((its, after)) = after.split_at_checked(length.into()) else { return };
        *code = its.to_vec();
        rest = after;
    }
    if let Some(build) = Libpq::of(code) {
        let _ = build.read(rest);
    }
}

/// A connection whose session's state is wanted, and its local address.
pub type WantedState = (ConnectionId, SocketAddr);

/// The state of a session by the word of its driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundState {
    /// The connection that was asked about.
    pub id: ConnectionId,
    /// Inode of the socket that the driver uses for it.
    pub inode: u64,
    /// The state.
    pub state: WireState,
}

/// The states of a process's sessions.
#[derive(Debug, PartialEq, Eq)]
pub struct ProcessStates {
    /// When they began to be read.
    pub began: Timestamp,
    /// Those that are known.
    pub states: Vec<FoundState>,
}

/// Reads the states of sessions, and remembers where drivers have them.
#[derive(Debug, Default)]
pub struct DriverReader {
    known: HashMap<ProcessKey, Program>,
}

/// A program with connections whose state the wire does not tell.
#[derive(Debug)]
struct Program {
    /// The builds of libpq that it runs.
    builds: Vec<Libpq>,
    /// Where the connections are, by local address.
    places: HashMap<SocketAddr, u64>,
    /// When the next search may begin.
    search_at: Instant,
    pause: Duration,
    /// Where the next search goes on.
    search_from: u64,
}

impl DriverReader {
    /// Reads the states of these sessions; `None` when the process has no driver that is known.
    pub fn read(
        &mut self,
        resolver: &mut Resolver,
        process: ProcessKey,
        wanted: &[WantedState],
    ) -> Option<ProcessStates> {
        if self.known.len() >= MAX_PROCESSES && !self.known.contains_key(&process) {
            return None;
        }
        let program = self.known.entry(process).or_insert_with(Program::new);
        program.look_for_driver(resolver, process);
        if program.builds.is_empty() {
            return None;
        }
        let memory = ProcessMemory::open(process).ok()?;
        let descriptors = Descriptors::of(process)?;
        program.find(&memory, process, wanted);
        let began = clock::now();
        let first = program.states(&memory, wanted);
        let states = program.states(&memory, wanted).into_iter().filter_map(|(id, known)| {
            let is_stable = first.get(&id) == Some(&known);
            let inode = descriptors.socket(known.descriptor.into())?;
            Some(FoundState { id, inode, state: known.state.filter(|_| is_stable)? })
        });
        Some(ProcessStates { began, states: states.collect() })
    }

    /// Looks for connections among the words of a stack that has just used one.
    pub fn note(&mut self, stack: &RawStack) {
        let Some(program) = self.known.get_mut(&stack.process) else { return };
        if program.builds.is_empty() {
            return;
        }
        let Ok(memory) = ProcessMemory::open(stack.process) else { return };
        let (words, _) = stack.bytes.as_chunks();
        let words = words.iter().map(|word| u64::from_le_bytes(*word));
        let mut words: Vec<u64> =
            stack.preserved.into_iter().chain([stack.bp]).chain(words).collect();
        words.sort_unstable();
        words.dedup();
        let own = stack.sp..stack.sp.saturating_add(stack.bytes.len() as u64);
        for place in words.into_iter().filter(|word| may_be_allocated(*word)) {
            if !own.contains(&place) {
                program.note(&memory, place);
            }
        }
    }

    /// Forgets a process that has exited.
    pub fn forget(&mut self, process: ProcessKey) {
        self.known.remove(&process);
    }
}

/// Whether something that was allocated may begin there.
fn may_be_allocated(address: u64) -> bool {
    address.is_multiple_of(16) && (0x1_0000..1 << 47).contains(&address)
}

impl Program {
    fn new() -> Self {
        Self {
            builds: Vec::new(),
            places: HashMap::new(),
            search_at: Instant::now(),
            pause: SHORTEST_PAUSE,
            search_from: 0,
        }
    }

    /// A program may load its driver late.
    fn look_for_driver(&mut self, resolver: &mut Resolver, process: ProcessKey) {
        if !self.builds.is_empty() || Instant::now() < self.search_at {
            return;
        }
        let found = resolver.functions(process, LIBRARY, ACCESSORS, clock::now());
        self.builds = found.into_iter().filter_map(Libpq::of).collect();
        if self.builds.is_empty() {
            self.rest(self.pause);
        }
    }

    /// Puts the next search off.
    fn rest(&mut self, pause: Duration) {
        self.search_at = Instant::now() + pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// Searches the process's memory if the place of a wanted connection is not known.
    fn find(&mut self, memory: &ProcessMemory, process: ProcessKey, wanted: &[WantedState]) {
        let mut missing =
            wanted.iter().filter(|(_, local)| !self.places.contains_key(local)).count();
        if missing == 0 || Instant::now() < self.search_at {
            return;
        }
        let began = Instant::now();
        self.make_room();
        let (builds, places) = (&self.builds, &mut self.places);
        let is_wanted = |end: &&SocketAddr| wanted.iter().any(|(_, local)| local == *end);
        let mut found = 0;
        let areas = allocated(process, self.search_from);
        let goes_on = search(memory, &areas, SIZE, |place, bytes| {
            let Some(known) = builds.iter().find_map(|build| build.read(bytes)) else {
                return true;
            };
            for &end in known.ends.iter().filter(is_wanted) {
                if places.insert(end, place).is_none() {
                    (missing, found) = (missing.saturating_sub(1), found + 1);
                }
            }
            missing > 0
        });
        let took = began.elapsed();
        log::debug!(
            "process {}: {found} connections of libpq found in {} ms, {missing} not",
            process.pid,
            took.as_millis()
        );
        self.search_from = goes_on.unwrap_or(0);
        if goes_on.is_none() {
            if found > 0 {
                self.pause = SHORTEST_PAUSE;
            }
            self.rest(self.pause.max(took * PAUSE));
        }
    }

    /// Remembers a place if a connection is there.
    fn note(&mut self, memory: &ProcessMemory, place: u64) {
        let Some(bytes) = object(memory, place, SIZE) else { return };
        let Some(known) = self.builds.iter().find_map(|build| build.read(&bytes)) else { return };
        // Both ends are kept: only one is ever asked for.
        self.make_room();
        self.places.extend(known.ends.into_iter().map(|end| (end, place)));
    }

    /// Forgets all places when there are too many: most are of connections that are gone.
    fn make_room(&mut self) {
        if self.places.len() >= MAX_PLACES {
            self.places.clear();
        }
    }

    /// What is known of each wanted connection now. Places where it is no longer are forgotten.
    fn states(
        &mut self,
        memory: &ProcessMemory,
        wanted: &[WantedState],
    ) -> HashMap<ConnectionId, Known> {
        let mut states = HashMap::new();
        for &(id, local) in wanted {
            let Some(&place) = self.places.get(&local) else { continue };
            let bytes = object(memory, place, SIZE);
            let known = bytes.and_then(|bytes| self.builds.iter().find_map(|one| one.read(&bytes)));
            match known.filter(|known| known.ends.contains(&local)) {
                Some(known) => {
                    states.insert(id, known);
                }
                None => {
                    self.places.remove(&local);
                }
            }
        }
        states
    }
}
