//! Reads the kernel programs' table of connections and tells which entries have changed.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use aya::maps::{Array, MapData};
use bytemuck::bytes_of;
use leak_common::connection::{Connection, FirstBytes};

use crate::model::ConnectionId;
use crate::sources::kernel::mapped_slots::MappedSlots;
use crate::sources::kernel::plain::MapValue;

/// One reading of the live connections.
#[derive(Debug, Default)]
pub struct Reading {
    /// Connections that have not changed since the last reading.
    pub unchanged: Vec<ConnectionId>,
    /// The others, with the first bytes of the dialogue if they were kept.
    pub changed: Vec<(Connection, Option<Box<FirstBytes>>)>,
}

impl Reading {
    /// How many connections there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.unchanged.len() + self.changed.len()
    }
}

/// A slot at its last reading.
#[derive(Clone, Copy, Debug, Default)]
struct LastSeen {
    /// 0 if the slot was free.
    cookie: u64,
    /// A hash of the whole slot.
    fingerprint: u64,
}

/// The table, and its state at the last reading.
pub(super) struct Slots {
    connections: MappedSlots<Connection>,
    first_bytes: Array<MapData, MapValue<FirstBytes>>,
    seen: Vec<LastSeen>,
    /// The slot of each connection. Slots are reused, so this holds only until the next reading.
    places: HashMap<u64, u32>,
    fingerprints: RandomState,
}

impl Slots {
    pub(super) fn new(
        connections: MappedSlots<Connection>,
        first_bytes: Array<MapData, MapValue<FirstBytes>>,
    ) -> Self {
        let (seen, places, fingerprints) = Default::default();
        Self { connections, first_bytes, seen, places, fingerprints }
    }

    /// Makes the first `end` slots readable, or all if there are fewer.
    pub(super) fn reach(&mut self, end: usize) -> std::io::Result<()> {
        let reached = self.connections.reach(end);
        let end = end.min(self.connections.mapped()).max(self.seen.len());
        self.seen.resize(end, LastSeen::default());
        reached
    }

    /// Reads all readable slots.
    pub(super) fn read(&mut self) -> Reading {
        let Self { connections, first_bytes, seen, places, fingerprints } = self;
        let mut reading = Reading::default();
        for (place, seen) in (0..).zip(seen) {
            let connection = connections.snapshot(place);
            let now = connection.as_ref().map_or(LastSeen::default(), |connection| LastSeen {
                cookie: connection.cookie,
                fingerprint: fingerprints.hash_one(bytes_of(connection)),
            });
            let before = std::mem::replace(seen, now);
            if before.cookie != now.cookie && places.get(&before.cookie) == Some(&place) {
                places.remove(&before.cookie);
            }
            let Some(connection) = connection else { continue };
            if (before.cookie, before.fingerprint) == (now.cookie, now.fingerprint) {
                reading.unchanged.push(ConnectionId(now.cookie));
            } else {
                places.insert(now.cookie, place);
                // If the slot was reused meanwhile, these bytes belong to another connection.
                let kept = kept(first_bytes, place, &connection).filter(|_| {
                    let after = connections.snapshot(place);
                    after.is_some_and(|after| is_same(&after, &connection))
                });
                reading.changed.push((connection, kept));
            }
        }
        reading
    }

    /// The slot in which a connection was last seen.
    pub(super) fn place(&self, id: ConnectionId) -> Option<u32> {
        self.places.get(&id.0).copied()
    }

    /// Marks a connection dirty: the next reading lists it as changed.
    pub(super) fn forget(&mut self, id: ConnectionId) {
        let place = self.place(id).and_then(|place| usize::try_from(place).ok());
        if let Some(seen) = place.and_then(|place| self.seen.get_mut(place)) {
            seen.fingerprint = seen.fingerprint.wrapping_add(1);
        }
    }
}

/// The first bytes of a connection's dialogue; `None` if there are none.
fn kept(
    first_bytes: &Array<MapData, MapValue<FirstBytes>>,
    place: u32,
    connection: &Connection,
) -> Option<Box<FirstBytes>> {
    if connection.startup_len == 0 && connection.refusal_len == 0 {
        return None;
    }
    Some(Box::new(first_bytes.get(&place, 0).ok()?.0))
}

fn is_same(one: &Connection, other: &Connection) -> bool {
    (one.cookie, one.opened_ns) == (other.cookie, other.opened_ns)
}
