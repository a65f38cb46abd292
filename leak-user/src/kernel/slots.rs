//! Reading the kernel programs' table of connections, of which most have not changed since.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use aya::maps::{Array, MapData};
use bytemuck::bytes_of;
use leak_common::connection::{Connection, FirstBytes};

use super::load::Value;
use super::mapped::MappedArray;
use crate::event::ConnectionId;

/// The live connections, as they were just read.
#[derive(Debug, Default)]
pub struct Reading {
    /// Of these nothing has changed since they were last read.
    pub unchanged: Vec<ConnectionId>,
    /// The others, and how the dialogue began where something of that was kept.
    pub changed: Vec<(Connection, Option<Box<FirstBytes>>)>,
}

impl Reading {
    /// How many connections there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.unchanged.len() + self.changed.len()
    }
}

/// What a slot held when it was last read.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// 0: nothing.
    cookie: u64,
    /// Differs when anything of it differs.
    fingerprint: u64,
}

/// The table, and what was seen of it.
pub(super) struct Slots {
    connections: MappedArray<Connection>,
    first_bytes: Array<MapData, Value<FirstBytes>>,
    seen: Vec<Seen>,
    /// Which slot each connection has. Slots change hands, so it is good only for reading right away.
    places: HashMap<u64, u32>,
    fingerprints: RandomState,
}

impl Slots {
    pub(super) fn new(
        connections: MappedArray<Connection>,
        first_bytes: Array<MapData, Value<FirstBytes>>,
    ) -> Self {
        let (seen, places, fingerprints) = Default::default();
        Self { connections, first_bytes, seen, places, fingerprints }
    }

    /// Has the first `end` slots within reach, or all if there are fewer.
    pub(super) fn reach(&mut self, end: usize) -> std::io::Result<()> {
        let reached = self.connections.reach(end);
        let end = end.min(self.connections.mapped()).max(self.seen.len());
        self.seen.resize(end, Seen::default());
        reached
    }

    /// Reads all slots within reach.
    pub(super) fn read(&mut self) -> Reading {
        let Self { connections, first_bytes, seen, places, fingerprints } = self;
        let mut reading = Reading::default();
        for (place, seen) in (0..).zip(seen) {
            let connection = connections.connection(place);
            let now = connection.as_ref().map_or(Seen::default(), |connection| Seen {
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
                // What was read of a slot that has changed hands meanwhile is another connection's.
                let kept = kept(first_bytes, place, &connection).filter(|_| {
                    let after = connections.connection(place);
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

    /// Has a connection count as changed when it is next read.
    pub(super) fn forget(&mut self, id: ConnectionId) {
        let place = self.place(id).and_then(|place| usize::try_from(place).ok());
        if let Some(seen) = place.and_then(|place| self.seen.get_mut(place)) {
            seen.fingerprint = seen.fingerprint.wrapping_add(1);
        }
    }
}

/// How a connection's dialogue began; `None` when nothing of that is kept.
fn kept(
    first_bytes: &Array<MapData, Value<FirstBytes>>,
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
