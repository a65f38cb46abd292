//! The state of one connection in the kernel: read by the collector each interval, never streamed.

use bytemuck::{Pod, Zeroable};

use crate::size;

/// Most bytes of a startup message that are kept for its user, database and application name.
pub const MAX_STARTUP: usize = 256;

/// Most bytes kept of the error that refuses a startup: its code comes first, then its text, which
/// names the limit that is reached.
pub const MAX_REFUSAL: usize = 128;

/// `AF_INET` of the kernel.
pub const AF_INET: u32 = 2;
/// `AF_INET6` of the kernel.
pub const AF_INET6: u32 = 10;

/// Both ends of a connection.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, Default, PartialEq, Eq)]
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
size!(Tuple, 40);

/// The process and thread that make a call.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, Default, PartialEq, Eq)]
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
size!(Caller, 32);

/// TCP states in the kernel's numbers, include/net/tcp_states.h: those that the programs ask for.
pub mod tcp_state {
    /// Open for data.
    pub const ESTABLISHED: u32 = 1;
    /// `connect()` was called, and the server has not answered.
    pub const SYN_SENT: u32 = 2;
    /// No connection.
    pub const CLOSE: u32 = 7;
}

/// Progress of the dialogue with the server.
pub mod phase {
    /// Nothing was sent yet.
    pub const NEW: u32 = 0;
    /// The client asked for encryption; the server has not answered.
    pub const ENCRYPTION_ASKED: u32 = 1;
    /// Everything from here on is encrypted: the state stays unknown.
    pub const ENCRYPTED: u32 = 2;
    /// The startup message was sent; the server was not ready yet.
    pub const STARTUP: u32 = 3;
    /// The server has said at least once that it is ready.
    pub const READY: u32 = 4;
    /// Opened before tracing began, or data was transferred unseen: unknown until the server says
    /// that it is ready.
    pub const UNKNOWN: u32 = 5;
    /// The first bytes were not PostgreSQL's.
    pub const FOREIGN: u32 = 6;
}

/// What the last visible messages of server and client say.
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

/// Bits of [`Connection::flags`].
pub mod flag {
    /// The connection was first seen in use: it was opened before tracing began, or its `connect()`
    /// was missed.
    pub const ADOPTED: u32 = 1;
    /// The client has sent `LISTEN`, and the server has not refused it: it is meant to be silent.
    pub const LISTENS: u32 = 2;
    /// The handshake failed: the socket has no connection until `connect()` is called again.
    pub const FAILED: u32 = 4;
    /// More than one thread has used the connection, counting its opener: it does not belong to a
    /// thread.
    pub const MOVED: u32 = 8;
    /// It was opened only to cancel a request on another connection.
    pub const CANCELS: u32 = 16;
    /// The client has sent `LISTEN`, and the server may still refuse it.
    pub const LISTEN_ASKED: u32 = 32;
    /// The process that opened it was exiting when it was closed: the kernel closed it.
    pub const CLOSED_AT_EXIT: u32 = 64;
    /// More than one thread has begun requests in the transaction under way.
    pub const TRANSACTION_MOVED: u32 = 128;
    /// The server has agreed to encryption when it was asked.
    pub const ENCRYPTION_AGREED: u32 = 256;
}

/// What the parser of the dialogue remembers between calls. Only the kernel programs know what is
/// in it.
#[repr(transparent)]
#[derive(Clone, Copy, Pod, Zeroable, Debug)]
pub struct ParserState([u64; 5]);

/// Counters and state of one connection, updated by the kernel programs.
///
/// The [`FirstBytes`] of the same connection have the same index in another map.
///
/// The fields that count sends are written only by send programs, those that count receives only by
/// receive programs. Both write the state of the dialogue, without a lock: when one thread sends
/// while another receives, it can be wrong until the server next says that it is ready.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug)]
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
    /// When payload was last sent, ns, exact to a tick of the kernel (1 to 10 ms); 0: never seen.
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
    /// Progress of the dialogue: one of [`phase`].
    pub phase: u32,
    /// One of [`state`].
    pub wire: u32,
    /// When the server was first seen in the transaction under way, ns, exact to a tick; 0: it is
    /// in none, or that cannot be seen.
    pub transaction_ns: u64,
    /// Process id of the server's backend; 0: not seen.
    pub backend_pid: u32,
    /// How many bytes of [`FirstBytes::startup`] are valid.
    pub startup_len: u32,
    /// How many bytes of [`FirstBytes::refusal`] are valid.
    pub refusal_len: u32,
    /// The tick in which the exact time of a transfer was last taken.
    pub tick: u32,
    /// The parser's own.
    pub parser: ParserState,
}
size!(Connection, 232);

/// The first bytes of the dialogue: written once, and kept apart from what is read each interval.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug)]
pub struct FirstBytes {
    /// The startup message from its first byte.
    pub startup: [u8; MAX_STARTUP],
    /// The `ErrorResponse` to the startup message, from its first byte.
    pub refusal: [u8; MAX_REFUSAL],
}
size!(FirstBytes, MAX_STARTUP + MAX_REFUSAL);

/// Most uses of one connection that are kept.
pub const MAX_USES: usize = 16;

/// A use of a connection: from a request until the server is idle again. The requests of a
/// transaction are one use.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// Number of its first request.
    pub request: u64,
    /// When that request began, ns.
    pub acquired_ns: u64,
    /// When the server was idle again, ns; 0: not seen yet.
    pub released_ns: u64,
    /// Process that began it.
    pub tgid: u32,
    /// Thread that began it.
    pub tid: u32,
}
size!(Use, 32);

/// The latest uses of one connection, as many as [`crate::config::Config::uses`] says.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug)]
pub struct Uses {
    /// Socket cookie of their connection.
    pub cookie: u64,
    /// Its [`Connection::opened_ns`]: a socket can be connected again.
    pub opened_ns: u64,
    /// How many uses have begun. The latest is at that number less one, modulo how many are kept.
    pub begun: u64,
    /// The latest of them.
    pub uses: [Use; MAX_USES],
}
size!(Uses, 24 + 32 * MAX_USES);
