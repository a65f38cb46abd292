//! What the kernel keeps of one connection: read by the collector each interval, never streamed.

use crate::plain;

/// Most bytes of a startup message that are kept for its user, database and application name.
pub const MAX_STARTUP: usize = 256;

/// Most bytes of a startup's refusal that are kept: the error's code comes first.
pub const MAX_REFUSAL: usize = 64;

/// `AF_INET` of the kernel.
pub const AF_INET: u32 = 2;
/// `AF_INET6` of the kernel.
pub const AF_INET6: u32 = 10;

/// Both ends of a connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tuple {
    /// Address of the traced side, network order; an IPv4 address fills the first four bytes.
    pub local: [u8; 16],
    /// Address of the server, in the same form.
    pub remote: [u8; 16],
    /// Port of the traced side, host order; 0 until the kernel has chosen one.
    pub local_port: u16,
    /// Port of the server, host order.
    pub remote_port: u16,
    /// [`AF_INET`] or [`AF_INET6`].
    pub family: u32,
}
plain!(Tuple, 40);

/// A process and thread at the moment of a call.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Process (the kernel's tgid), as the initial PID namespace numbers it.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// Start time of the process, nanoseconds of `CLOCK_BOOTTIME`.
    pub process_start_ns: u64,
    /// Name of the thread, NUL-terminated.
    pub comm: [u8; 16],
}
plain!(Caller, 32);

/// How far the dialogue with the server has got.
pub mod phase {
    /// Nothing was sent yet.
    pub const NEW: u32 = 0;
    /// The client asked for encryption; the server has not answered.
    pub const ENCRYPTION_ASKED: u32 = 1;
    /// Everything further is encrypted: the state stays unknown.
    pub const ENCRYPTED: u32 = 2;
    /// The startup message was sent; the server was not ready yet.
    pub const STARTUP: u32 = 3;
    /// The server has said at least once that it is ready.
    pub const READY: u32 = 4;
    /// Opened before tracing began, or bytes were moved unseen: unknown until the server says that
    /// it is ready.
    pub const UNKNOWN: u32 = 5;
    /// The first bytes were not PostgreSQL's.
    pub const FOREIGN: u32 = 6;
}

/// What the server's and client's last visible messages say.
pub mod state {
    /// Cannot be known.
    pub const UNKNOWN: u32 = 0;
    /// The server said `ReadyForQuery` outside a transaction.
    pub const IDLE: u32 = 1;
    /// A request is unanswered.
    pub const BUSY: u32 = 2;
    /// `ReadyForQuery` inside a transaction.
    pub const IN_TRANSACTION: u32 = 3;
    /// `ReadyForQuery` inside a failed transaction.
    pub const FAILED_TRANSACTION: u32 = 4;
    /// The server entered COPY and the client has not ended it.
    pub const COPY: u32 = 5;
    /// The server entered copy-both: streaming replication.
    pub const REPLICATION: u32 = 6;
}

/// Where a message ends is not known.
pub const LOST: u64 = u64::MAX;

/// Bits of [`Connection::flags`].
pub mod flag {
    /// The connection was first seen in use: it was opened before tracing began, or its `connect()`
    /// was missed.
    pub const ADOPTED: u32 = 1;
    /// The client has sent `LISTEN`: silence is what it is for.
    pub const LISTENS: u32 = 2;
    /// The handshake failed: the socket is no connection any more, unless `connect()` is called again.
    pub const FAILED: u32 = 4;
    /// More than one thread has begun requests on the connection, its opener counted in: it does not
    /// belong to a thread.
    pub const MOVED: u32 = 8;
    /// It was opened to cancel a request on another one, and is no connection to work with.
    pub const CANCELS: u32 = 16;
}

/// Counters and state of one connection, updated by the kernel programs.
///
/// [`FirstBytes`] of the same connection have the same index in a map of their own.
///
/// What counts sends is written only by send programs and what counts receives only by receive
/// programs. The state of the dialogue is written by both, without a lock: a client that sends while
/// another of its threads receives can leave it wrong until the server next says that it is ready.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// Socket cookie; 0 when the slot is free.
    pub cookie: u64,
    /// When `connect()` was called, or the connection first seen; `CLOCK_MONOTONIC`, ns.
    pub opened_ns: u64,
    /// Who called `connect()`, or used the connection first when it was adopted.
    pub opener: Caller,
    /// Both ends.
    pub tuple: Tuple,
    /// When the connection last changed its TCP state, ns.
    pub state_changed_ns: u64,
    /// TCP state in the kernel's numbers (`TCP_ESTABLISHED` = 1 …).
    pub tcp_state: u32,
    /// Bits of [`flag`].
    pub flags: u32,
    /// Payload bytes sent.
    pub bytes_sent: u64,
    /// When payload was last sent, ns, exact to a tick of the kernel's (1 to 10 ms); 0: never seen.
    pub last_send_ns: u64,
    /// Requests begun: sends after the server had answered, or the first after `connect()`.
    pub requests: u64,
    /// When the latest request began, ns, exact to a tick.
    pub request_ns: u64,
    /// Process that began it.
    pub request_tgid: u32,
    /// Thread that began it.
    pub request_tid: u32,
    /// Payload bytes received (read by the process).
    pub bytes_received: u64,
    /// When payload was last received, likewise; 0: never seen.
    pub last_receive_ns: u64,
    /// The number of the latest request that the server has begun to answer.
    pub answered: u64,
    /// How far the dialogue has got: one of [`phase`].
    pub phase: u32,
    /// One of [`state`].
    pub wire: u32,
    /// Bytes of the client's last message that are still to be sent, or [`LOST`].
    pub sending: u64,
    /// Bytes of the server's last message that are still to be received, or [`LOST`]; counted only
    /// while more than one `ReadyForQuery` is expected.
    pub receiving: u64,
    /// How many `ReadyForQuery` the requests sent so far will still bring.
    pub expected: u32,
    /// Where the search for a statement's first word stands.
    pub search: u32,
    /// The last six bytes received: the newest in the lowest byte, the oldest in the sixth.
    pub tail: u64,
    /// Process id of the server's backend; 0: not seen.
    pub backend_pid: u32,
    /// How many bytes of [`FirstBytes::startup`] are valid.
    pub startup_len: u32,
    /// How many bytes of [`FirstBytes::refusal`] are valid.
    pub refusal_len: u32,
    /// The tick in which the clock was last looked at for when bytes were moved.
    pub tick: u32,
}
plain!(Connection, 224);

/// How the dialogue began: written once, and kept apart from what every interval reads.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FirstBytes {
    /// The startup message from its first byte.
    pub startup: [u8; MAX_STARTUP],
    /// The `ErrorResponse` to the startup message, from its first byte.
    pub refusal: [u8; MAX_REFUSAL],
}
plain!(FirstBytes, MAX_STARTUP + MAX_REFUSAL);

/// Most uses of one connection that are kept.
pub const MAX_USES: usize = 16;

/// A use of a connection: from its first request until the server is idle again. The requests of a
/// transaction are one use.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// Number of its first request.
    pub request: u64,
    /// When that began, ns.
    pub acquired_ns: u64,
    /// When the server was seen to be idle again, ns; 0: it was not seen.
    pub released_ns: u64,
    /// Process that began it.
    pub tgid: u32,
    /// Thread that began it.
    pub tid: u32,
}
plain!(Use, 32);

/// The latest uses of one connection, as many as [`crate::config::Config::uses`] says.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Uses {
    /// Socket cookie of the connection that they belong to.
    pub cookie: u64,
    /// [`Connection::opened_ns`] of it: a socket can begin another connection.
    pub opened_ns: u64,
    /// How many uses have begun. The latest one's place is that number less one, modulo the kept.
    pub begun: u64,
    /// The uses.
    pub uses: [Use; MAX_USES],
}
plain!(Uses, 24 + 32 * MAX_USES);
