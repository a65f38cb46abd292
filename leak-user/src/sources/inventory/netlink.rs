//! Dumps of the kernel's lists of sockets, sock_diag(7), whatever kind of sockets they list.

use std::io;
use std::time::Duration;

use netlink_packet_core::{
    DecodeError, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::SOCK_DIAG_BY_FAMILY;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

/// Larger than any datagram of a dump: the kernel fills at most 32 KiB at a time.
const BUFFER_BYTES: usize = 64 << 10;
/// Attempts to dump a list that changes during the dump.
const ATTEMPTS: usize = 4;
/// Time limit for each datagram.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

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

/// Reads the message about one socket; `None` when it is none that matters.
pub(super) type Parse<T> = fn(&[u8]) -> Result<Option<T>, DecodeError>;

/// The bytes of a request for a dump.
pub(super) fn request(request: SockDiagMessage) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Asks the kernel, in the calling thread's network namespace.
///
/// # Errors
///
/// When the kernel cannot be asked, refuses, or its answer is malformed.
pub(super) fn dump<T>(request: &[u8], parse: Parse<T>) -> Result<Vec<T>, DiagError> {
    for _ in 0..ATTEMPTS {
        if let Some(sockets) = dump_once(request, parse)? {
            return Ok(sockets);
        }
    }
    Err(DiagError::Unsteady)
}

/// `None` when the list changed while it was read.
fn dump_once<T>(request: &[u8], parse: Parse<T>) -> Result<Option<Vec<T>>, DiagError> {
    // A new socket for each dump, so that leftovers of an aborted dump cannot be mistaken for this
    // one.
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_TIMEOUT)).map_err(io::Error::from)?;
    socket.send(request, 0)?;
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
        dump.read(&buffer, parse)?;
    }
    Ok((!dump.interrupted).then_some(dump.sockets))
}

/// The part of a dump that has been read.
#[derive(Debug)]
pub(super) struct Dump<T> {
    pub(super) sockets: Vec<T>,
    pub(super) interrupted: bool,
    pub(super) done: bool,
}

impl<T> Default for Dump<T> {
    fn default() -> Self {
        Self { sockets: Vec::new(), interrupted: false, done: false }
    }
}

impl<T> Dump<T> {
    /// Reads one datagram; `parse` reads a socket's message.
    pub(super) fn read(&mut self, mut datagram: &[u8], parse: Parse<T>) -> Result<(), DiagError> {
        let malformed = |error: String| DiagError::Malformed(error);
        while !datagram.is_empty() && !self.done {
            let unreadable = |error: DecodeError| malformed(error.to_string());
            let message = NetlinkBuffer::new_checked(datagram).map_err(unreadable)?;
            self.interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
            if message.message_type() == SOCK_DIAG_BY_FAMILY {
                let socket = parse(message.payload()).map_err(unreadable)?;
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
