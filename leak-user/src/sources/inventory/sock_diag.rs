//! Dumps the kernel's list of TCP sockets with sock_diag(7), in the calling thread's network
//! namespace.
//!
//! The kernel filters by port. A dump also makes the kernel assign a cookie to each socket, by
//! which the kernel programs can find it from then on.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use netlink_packet_core::{DecodeError, Emitable as _, NlasIterator, Parseable as _};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, INET_DIAG_INFO, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags,
};

use crate::model::{ConnectionId, Endpoints, TcpState};
use crate::sources::inventory::netlink;
pub use crate::sources::inventory::netlink::DiagError;
#[cfg(any(test, feature = "fuzzing"))]
use crate::sources::inventory::netlink::Dump;

/// States in which a client has the connection; `TIME_WAIT` belongs to no process.
const STATES: StateFlags = StateFlags::ESTABLISHED
    .union(StateFlags::SYN_SENT)
    .union(StateFlags::FIN_WAIT1)
    .union(StateFlags::FIN_WAIT2)
    .union(StateFlags::CLOSE_WAIT)
    .union(StateFlags::LAST_ACK)
    .union(StateFlags::CLOSING);

/// One socket of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiagSocket {
    /// Cookie.
    pub id: ConnectionId,
    /// Inode; 0 when no process holds the socket any more.
    pub inode: u64,
    /// Both ends.
    pub endpoints: Endpoints,
    /// TCP state.
    pub state: TcpState,
    /// Payload bytes that the process has not read.
    pub unread_bytes: u32,
    /// Counters and times from `struct tcp_info`.
    pub activity: Activity,
}

/// Payload counters and times of one socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Payload bytes that the peer has acknowledged.
    pub bytes_sent: u64,
    /// Payload bytes received.
    pub bytes_received: u64,
    /// Time since payload was last sent, or since the connection was established; `None` before
    /// that.
    pub since_send: Option<Duration>,
    /// Time since payload was last received, likewise.
    pub since_receive: Option<Duration>,
}

/// Lists the TCP sockets whose remote port is one of `ports`, in the calling thread's network
/// namespace. This needs no privileges.
///
/// # Errors
///
/// When the kernel cannot be asked, refuses, or its answer is malformed.
pub fn dump(ports: &[u16]) -> Result<Vec<DiagSocket>, DiagError> {
    let mut sockets = Vec::new();
    // Port 0 would mean every port.
    for &port in ports.iter().filter(|&&port| port != 0) {
        for family in [AF_INET, AF_INET6] {
            sockets.extend(netlink::dump(&request(family, port), DiagSocket::read)?);
        }
    }
    sockets.sort_by_key(|socket| socket.id);
    sockets.dedup_by_key(|socket| socket.id);
    Ok(sockets)
}

fn request(family: u8, port: u16) -> Vec<u8> {
    let mut socket_id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
    socket_id.destination_port = port;
    socket_id.cookie = [0xff; 8];
    netlink::request(SockDiagMessage::InetRequest(InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::INFO,
        states: STATES,
        socket_id,
    }))
}

impl DiagSocket {
    /// Reads a socket; `None` for the stub without `tcp_info` that the kernel keeps of a destroyed
    /// socket and lists as `FIN_WAIT2`.
    ///
    /// Reads in place: the library would copy every attribute, which for 20,000 sockets takes as
    /// long as the kernel's part of the dump.
    fn read(message: &[u8]) -> Result<Option<Self>, DecodeError> {
        let header = InetResponseHeader::parse(message)?;
        let attributes = message.get(header.buffer_len()..).unwrap_or_default();
        let mut info = None;
        for attribute in NlasIterator::new(attributes) {
            let attribute = attribute?;
            if attribute.kind() == INET_DIAG_INFO {
                info = Some(attribute);
            }
        }
        let (Some(state), Some(info)) = (TcpState::from_kernel(header.state.into()), info) else {
            return Ok(None);
        };
        let id = &header.socket_id;
        let end = |ip: IpAddr, port| SocketAddr::new(ip.to_canonical(), port);
        Ok(Some(Self {
            id: ConnectionId(u64::from_ne_bytes(id.cookie)),
            inode: u64::from(header.inode),
            endpoints: Endpoints {
                local: end(id.source_address, id.source_port),
                remote: end(id.destination_address, id.destination_port),
            },
            state,
            unread_bytes: header.recv_queue.saturating_sub(u32::from(peer_closed(state))),
            activity: Activity::new(info.value(), state),
        }))
    }
}

impl Activity {
    /// Reads `struct tcp_info`, include/uapi/linux/tcp.h; older kernels end it earlier.
    fn new(info: &[u8], state: TcpState) -> Self {
        const LAST_DATA_SENT: usize = 44;
        const LAST_DATA_RECV: usize = 52;
        const BYTES_ACKED: usize = 120;
        const BYTES_RECEIVED: usize = 128;
        if state == TcpState::SynSent {
            return Self::default();
        }
        // SYN and FIN take one sequence number each, which the kernel counts as a byte.
        let sent_signals = 1 + u64::from(state == TcpState::FinWait2);
        let since = |at| field(info, at).map(|bytes| u32::from_ne_bytes(bytes).into());
        let count = |at| field(info, at).map_or(0, u64::from_ne_bytes);
        Self {
            bytes_sent: count(BYTES_ACKED).saturating_sub(sent_signals),
            bytes_received: count(BYTES_RECEIVED).saturating_sub(u64::from(peer_closed(state))),
            since_send: since(LAST_DATA_SENT).map(Duration::from_millis),
            since_receive: since(LAST_DATA_RECV).map(Duration::from_millis),
        }
    }
}

/// Whether the peer's FIN has arrived. The kernel counts its sequence number as a byte received
/// and, until the process has read the end of the stream, as an unread byte.
fn peer_closed(state: TcpState) -> bool {
    matches!(state, TcpState::CloseWait | TcpState::LastAck | TcpState::Closing)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// Reads any bytes as the kernel's answer.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(data: &[u8]) {
    // An error is as good as a result.
    let _ = Dump::default().read(data, DiagSocket::read);
}

#[cfg(test)]
mod tests;
