//! Dumps the kernel's list of TCP sockets with sock_diag(7), in the calling thread's network
//! namespace.
//!
//! The kernel filters by port. A dump also makes the kernel assign a cookie to each socket, by
//! which the kernel programs can find it from then on.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use netlink_packet_core::{
    DecodeError, Emitable as _, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator, Parseable as _,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{
    AF_INET, AF_INET6, INET_DIAG_INFO, IPPROTO_TCP, SOCK_DIAG_BY_FAMILY,
};
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags,
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr as NetlinkAddr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::model::{ConnectionId, Endpoints, TcpState};

/// Larger than any datagram of a dump: the kernel fills at most 32 KiB at a time.
const BUFFER_BYTES: usize = 64 << 10;
/// Attempts to dump a list that changes during the dump.
const ATTEMPTS: usize = 4;
/// Time limit for each datagram.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// States in which a client has the connection; `TIME_WAIT` belongs to no process.
const STATES: StateFlags = StateFlags::ESTABLISHED
    .union(StateFlags::SYN_SENT)
    .union(StateFlags::FIN_WAIT1)
    .union(StateFlags::FIN_WAIT2)
    .union(StateFlags::CLOSE_WAIT)
    .union(StateFlags::LAST_ACK)
    .union(StateFlags::CLOSING);

/// Why the sockets could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum DiagError {
    /// The netlink socket failed.
    #[error("cannot talk to the kernel's sock_diag: {0}")]
    Socket(#[from] io::Error),
    /// The kernel has no sock_diag for TCP.
    #[error("this kernel cannot list TCP sockets; load its module with `modprobe tcp_diag`")]
    Unsupported,
    /// The kernel refused the request.
    #[error("the kernel refused to list TCP sockets: {0}")]
    Refused(io::Error),
    /// The answer violates the protocol.
    #[error("cannot read the kernel's list of TCP sockets: {0}; please report this kernel")]
    Malformed(String),
    /// Sockets came and went faster than they could be dumped.
    #[error("the list of TCP sockets changed during each of {ATTEMPTS} attempts to read it")]
    Unsteady,
}

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
            sockets.extend(dump_steadily(family, port)?);
        }
    }
    sockets.sort_by_key(|socket| socket.id);
    sockets.dedup_by_key(|socket| socket.id);
    Ok(sockets)
}

fn dump_steadily(family: u8, port: u16) -> Result<Vec<DiagSocket>, DiagError> {
    for _ in 0..ATTEMPTS {
        if let Some(sockets) = dump_once(family, port)? {
            return Ok(sockets);
        }
    }
    Err(DiagError::Unsteady)
}

/// `None` when the list changed while it was read.
fn dump_once(family: u8, port: u16) -> Result<Option<Vec<DiagSocket>>, DiagError> {
    // A new socket for each dump, so that leftovers of an aborted dump cannot be mistaken for this
    // one.
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&NetlinkAddr::new(0, 0))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_TIMEOUT)).map_err(io::Error::from)?;
    socket.send(&request(family, port), 0)?;
    let mut dump = Dump::default();
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    while !dump.done {
        buffer.clear();
        let length = match socket.recv(&mut buffer, 0) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            length => length?,
        };
        if length == 0 {
            return Err(DiagError::Malformed("it ends too early".to_owned()));
        }
        dump.read(&buffer)?;
    }
    Ok((!dump.interrupted).then_some(dump.sockets))
}

fn request(family: u8, port: u16) -> Vec<u8> {
    let mut socket_id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
    socket_id.destination_port = port;
    socket_id.cookie = [0xff; 8];
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let request = SockDiagMessage::InetRequest(InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::INFO,
        states: STATES,
        socket_id,
    });
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// The part of a dump that has been read.
#[derive(Debug, Default)]
struct Dump {
    sockets: Vec<DiagSocket>,
    interrupted: bool,
    done: bool,
}

impl Dump {
    /// Reads one datagram.
    fn read(&mut self, mut datagram: &[u8]) -> Result<(), DiagError> {
        let malformed = |error: String| DiagError::Malformed(error);
        while !datagram.is_empty() && !self.done {
            let unreadable = |error: DecodeError| malformed(error.to_string());
            let message = NetlinkBuffer::new_checked(datagram).map_err(unreadable)?;
            self.interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
            if message.message_type() == SOCK_DIAG_BY_FAMILY {
                let socket = DiagSocket::read(message.payload()).map_err(unreadable)?;
                self.sockets.extend(socket);
            } else {
                self.conclude(datagram)?;
            }
            // The length was checked; messages are padded to four bytes.
            let length = message.length().next_multiple_of(4) as usize;
            datagram = datagram.get(length..).unwrap_or_default();
        }
        Ok(())
    }

    /// Reads a message that is not a socket.
    fn conclude(&mut self, datagram: &[u8]) -> Result<(), DiagError> {
        let malformed = |error: String| DiagError::Malformed(error);
        let message = NetlinkMessage::<SockDiagMessage>::deserialize(datagram)
            .map_err(|error| malformed(error.to_string()))?;
        match message.payload {
            NetlinkPayload::Done(end) if end.code < 0 => return Err(refusal(end.code)),
            NetlinkPayload::Done(_) => self.done = true,
            NetlinkPayload::Error(error) => return Err(refusal(error.raw_code())),
            NetlinkPayload::Noop => {}
            _ => return Err(malformed("an unexpected message".to_owned())),
        }
        Ok(())
    }
}

fn refusal(code: i32) -> DiagError {
    let number = code.saturating_abs();
    if number == libc::ENOENT {
        DiagError::Unsupported
    } else {
        DiagError::Refused(io::Error::from_raw_os_error(number))
    }
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
    let _ = Dump::default().read(data);
}

#[cfg(test)]
mod tests;
