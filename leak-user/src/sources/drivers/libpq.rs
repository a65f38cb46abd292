//! What libpq keeps of a connection: its `PGconn`, recognised by the library's own accessors.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::model::WireState;
use crate::sources::drivers::accessor::{Returned, call};

/// How the library's files begin, also those that Python's wheels and Ruby's gems bring along.
pub(super) const LIBRARY: &str = "libpq";
/// The accessors that are asked, each of which every release has.
pub(super) const ACCESSORS: [&str; 5] =
    ["PQstatus", "PQsocket", "PQtransactionStatus", "PQprotocolVersion", "PQserverVersion"];

/// As much of a `PGconn` as is looked at: the largest so far has less than 1,400 bytes.
pub(super) const SIZE: usize = 2048;

/// `CONNECTION_OK`
const OK: u32 = 0;
/// The protocol of every server since PostgreSQL 7.4.
const PROTOCOL: u32 = 3;
/// Versions of servers as libpq has them, from 7.4 on.
const SERVERS: std::ops::RangeInclusive<u32> = 70_400..=400_000;

/// A build of the library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Libpq {
    code: [Vec<u8>; ACCESSORS.len()],
    /// Where the protocol is, and in how many bytes.
    protocol: (usize, usize),
    /// Where the server's version is.
    server: usize,
}

/// A connection, as libpq knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// Its descriptor.
    pub(super) descriptor: u32,
    /// Both ends of it.
    pub(super) ends: Vec<SocketAddr>,
    /// Its session's state; `None` while libpq awaits a result.
    pub(super) state: Option<WireState>,
}

impl Libpq {
    /// The build whose accessors have this code; `None` when they are not what they used to be.
    pub(super) fn of(code: [Vec<u8>; ACCESSORS.len()]) -> Option<Self> {
        // Of an object without anything, each goes on to its field and returns it.
        let nothing = [0; SIZE];
        let [status, socket, transaction, protocol, server] = &code;
        for accessor in [status, socket, transaction] {
            call(accessor, &nothing)?.last_read?;
        }
        let protocol = call(protocol, &nothing)?.last_read?;
        let server = match call(server, &nothing)?.last_read? {
            (at, 4) => at,
            _ => return None,
        };
        matches!(protocol.1, 2 | 4).then_some(Self { code, protocol, server })
    }

    /// Whether `bytes` may begin with a connection: looked at first, since most do not.
    pub(super) fn may_be(&self, bytes: &[u8]) -> bool {
        let (at, size) = self.protocol;
        // The upper half of a number, which is read alone or with the other.
        let upper = if size == 4 { at + 2 } else { at };
        let server = bytes.get(self.server..).and_then(<[u8]>::first_chunk);
        let protocol = bytes.get(upper..).and_then(<[u8]>::first_chunk);
        server.is_some_and(|server| SERVERS.contains(&u32::from_le_bytes(*server)))
            && protocol.is_some_and(|half| u32::from(u16::from_le_bytes(*half)) == PROTOCOL)
    }

    /// The connection that `bytes` begin with, if all of it proves to be one that is established.
    pub(super) fn read(&self, bytes: &[u8]) -> Option<Known> {
        if !self.may_be(bytes) {
            return None;
        }
        let [status, socket, transaction, protocol, server] = &self.code;
        let ask = |code| call(code, bytes).map(|Returned { value, .. }| value);
        if ask(status)? != OK || ask(protocol)? != PROTOCOL || !SERVERS.contains(&ask(server)?) {
            return None;
        }
        let descriptor = ask(socket)?;
        i32::try_from(descriptor).ok()?;
        let state = match ask(transaction)? {
            0 => Some(WireState::Idle),
            // A result is awaited, or lies there and was not asked for.
            1 => None,
            2 => Some(WireState::InTransaction),
            3 => Some(WireState::FailedTransaction),
            _ => return None,
        };
        let ends = addresses(bytes);
        (!ends.is_empty()).then_some(Known { descriptor, ends, state })
    }
}

/// The addresses in a structure: each is a `sockaddr_storage`, with its length behind it.
fn addresses(bytes: &[u8]) -> Vec<SocketAddr> {
    const ALIGNED: usize = 8;
    const STORAGE: usize = 128;
    let address = |at: usize| {
        let storage = bytes.get(at..at.checked_add(STORAGE)?)?;
        let length = u32::from_le_bytes(*bytes.get(at + STORAGE..)?.first_chunk()?);
        let port = u16::from_be_bytes(*storage.get(2..)?.first_chunk()?);
        let family = u16::from_le_bytes(*storage.first_chunk()?);
        let ip = match (i32::from(family), length) {
            (libc::AF_INET, 16) => {
                let ip: [u8; 4] = *storage.get(4..)?.first_chunk()?;
                IpAddr::from(Ipv4Addr::from(ip))
            }
            (libc::AF_INET6, 28) => {
                let ip: [u8; 16] = *storage.get(8..)?.first_chunk()?;
                IpAddr::from(Ipv6Addr::from(ip))
            }
            _ => return None,
        };
        (port != 0).then(|| SocketAddr::new(ip.to_canonical(), port))
    };
    (0..bytes.len()).step_by(ALIGNED).filter_map(address).collect()
}

#[cfg(test)]
pub(super) mod tests;
