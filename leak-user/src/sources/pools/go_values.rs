//! Go's values in memory: words, slices, channels, interfaces.
//!
//! An interface is two words: the address of a table with the methods, and that of the value. The
//! table's methods are known by name even in stripped programs, and tell what the value is
//! (`src/internal/abi/iface.go` and `src/runtime/runtime2.go`).

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::sources::pools::memory::{Memory, words};

/// Where a table of methods has its first one.
const FIRST_METHOD: u64 = 24;
/// Most names that are remembered.
const MAX_NAMES: usize = 4096;
/// Most values within values on the way to a socket.
const MAX_DEPTH: usize = 8;
/// Where `net.netFD` has its descriptor, which no release since Go 1.9 has moved.
const DESCRIPTOR: u64 = 16;
/// Descriptors beyond this are none.
const MAX_DESCRIPTOR: u64 = 1 << 24;

/// The first methods of the tables of `net`'s connections, by name: methods are sorted. All these
/// types begin with the address of a `net.netFD`.
const NETWORK: [&str; 3] = ["net.(*conn).Close", "net.(*TCPConn).Close", "net.(*UnixConn).Close"];

/// Reads values.
pub(super) struct GoValues<'a> {
    memory: &'a dyn Memory,
    methods: RefCell<HashMap<u64, Option<Rc<str>>>>,
    creators: RefCell<HashMap<u64, Option<Rc<str>>>>,
}

impl<'a> GoValues<'a> {
    /// Those in this memory.
    pub(super) fn new(memory: &'a dyn Memory) -> Self {
        Self { memory, methods: RefCell::default(), creators: RefCell::default() }
    }

    /// The word at `address`.
    pub(super) fn word(&self, address: u64) -> Option<u64> {
        self.array::<1>(address).map(|[word]| word)
    }

    /// `N` words at `address`, read at once.
    pub(super) fn array<const N: usize>(&self, address: u64) -> Option<[u64; N]> {
        if address == 0 || !address.is_multiple_of(8) {
            return None;
        }
        self.words(address, N)?.try_into().ok()
    }

    /// `count` words at `address`, read at once; the caller has checked the count.
    pub(super) fn words(&self, address: u64, count: usize) -> Option<Vec<u64>> {
        let mut bytes = vec![0; count.checked_mul(8)?];
        self.memory.read(address, &mut bytes)?;
        Some(words(&bytes).collect())
    }

    /// Name of the first method of the table at `address`; `None` when no table is there.
    pub(super) fn first_method(&self, address: u64) -> Option<Rc<str>> {
        remembered(&self.methods, address, || {
            let method = self.word(address.checked_add(FIRST_METHOD)?)?;
            self.memory.function_from(method)
        })
    }

    /// The function that holds `address`.
    pub(super) fn creator(&self, address: u64) -> Option<Rc<str>> {
        remembered(&self.creators, address, || self.memory.function(address))
    }

    /// The descriptor of the connection that the value at `address` begins with. Drivers and what
    /// wraps them each begin with what they wrap: the address of another such value, an interface
    /// with one, or in the end a connection of the package `net`.
    pub(super) fn descriptor(&self, address: u64) -> Option<u64> {
        let mut address = address;
        for _ in 0..MAX_DEPTH {
            let first = self.word(address)?;
            let Some(method) = self.first_method(first) else {
                address = first;
                continue;
            };
            address = self.word(address.checked_add(8)?)?;
            if NETWORK.contains(&&*method) {
                let descriptor = self.word(address)?.checked_add(DESCRIPTOR)?;
                return self.word(descriptor).filter(|number| *number < MAX_DESCRIPTOR);
            }
        }
        None
    }
}

fn remembered(
    known: &RefCell<HashMap<u64, Option<Rc<str>>>>,
    address: u64,
    find: impl FnOnce() -> Option<String>,
) -> Option<Rc<str>> {
    if let Some(known) = known.borrow().get(&address) {
        return known.clone();
    }
    let found = find().map(Rc::from);
    let mut known = known.borrow_mut();
    if known.len() < MAX_NAMES {
        known.insert(address, found.clone());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::pools::testing::MadeUp;

    #[test]
    fn a_driver_s_socket_is_found_through_what_wraps_it() {
        let mut memory = MadeUp::default();
        memory.put_table(0x1000, "example.com/wrap.(*conn).Begin");
        memory.put_table(0x2000, "crypto/tls.(*Conn).Close");
        memory.put_table(0x3000, "net.(*TCPConn).Close");
        // An interface, an address, TLS, TCP, and the descriptor 7.
        memory.put(0x5000, &[0x1000, 0x5100]);
        memory.put(0x5100, &[0x5200]);
        memory.put(0x5200, &[0x2000, 0x5300]);
        memory.put(0x5300, &[0x3000, 0x5400]);
        memory.put(0x5400, &[0x5500]);
        memory.put(0x5500, &[0, 0, 7]);
        // What is no table has no function where its first method would be.
        for address in [0x5118, 0x5218, 0x5318, 0x5418, 0x5518] {
            memory.put(address, &[1]);
        }
        let values = GoValues::new(&memory);
        assert_eq!(values.descriptor(0x5000), Some(7));
        assert_eq!(values.descriptor(0x5400), None, "no connection leads there");
        memory.put(0x5510, &[u64::MAX]);
        assert_eq!(GoValues::new(&memory).descriptor(0x5000), None, "no descriptor");
    }

    #[test]
    fn a_circle_ends() {
        let mut memory = MadeUp::default();
        memory.put(0x1000, &[0x1000, 0, 0, 0]);
        assert_eq!(GoValues::new(&memory).descriptor(0x1000), None);
        assert_eq!(GoValues::new(&memory).descriptor(0x1004), None, "not where words are");
    }
}
