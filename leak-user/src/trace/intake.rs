//! From what the kernel programs write to facts: decodes the ring buffer and the connections'
//! counters.

use leak_common::connection::{Connection, FirstBytes};

use crate::model::Event;
use crate::sources::kernel::Tracer;
use crate::sources::kernel::decode::{self, DecodeError, Decoded};

/// Decodes, and counts what it has decoded.
#[derive(Debug, Default)]
pub(super) struct Intake {
    received: u64,
    undecodable: u64,
}

impl Intake {
    /// Takes up to `limit` events out of the ring buffer. Also returns how many there were,
    /// decodable or not.
    pub(super) fn events(&mut self, tracer: &mut Tracer, limit: usize) -> (usize, Vec<Decoded>) {
        let mut decoded = Vec::new();
        let count = tracer.drain(limit, |bytes| decoded.push(decode::event(bytes)));
        self.received += decoded.len() as u64;
        let events = decoded.into_iter().filter_map(|decoded| self.decodable(decoded));
        (count, events.collect())
    }

    /// The counters of the connections that have changed since they were last read.
    pub(super) fn counters(
        &mut self,
        changed: Vec<(Connection, Option<Box<FirstBytes>>)>,
    ) -> impl Iterator<Item = Event> {
        changed.into_iter().filter_map(move |(connection, first_bytes)| {
            let decoded = decode::slot(&connection, first_bytes.as_deref());
            self.decodable(decoded).flatten()
        })
    }

    /// Events received so far.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Records of either kind that could not be decoded so far.
    pub(super) fn undecodable(&self) -> u64 {
        self.undecodable
    }

    fn decodable<T>(&mut self, decoded: Result<T, DecodeError>) -> Option<T> {
        decoded
            .inspect_err(|error| {
                self.undecodable += 1;
                log::warn!("{error}; it is left out");
            })
            .ok()
    }
}
