//! What can happen to a connection, as everything after [`crate::sources::kernel::decode`] knows it.
//!
//! All times are [`Timestamp`]s: nothing from here on reads a clock.

pub mod clock;
pub mod cost;
mod destination;
mod pod;
pub mod process;
pub mod server;
mod tcp_state;

use std::net::SocketAddr;

use leak_common::connection::{AF_INET, AF_INET6, Tuple};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use leak_stacks::{ProcessKey, StackId, Timestamp};

pub use self::destination::{Destination, DestinationKind};
pub use self::pod::Pod;
use self::server::ServerAnswer;
pub use self::tcp_state::TcpState;

/// A connection's identity: the kernel's socket cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConnectionId(pub u64);

/// A process and thread at the moment of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The process.
    pub process: ProcessKey,
    /// The thread.
    pub tid: u32,
    /// Name of the thread.
    pub comm: String,
}

/// Both ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Endpoints {
    /// The traced side; port 0 until the kernel has chosen one.
    pub local: SocketAddr,
    /// The server.
    pub remote: SocketAddr,
}

impl Endpoints {
    /// Reads the kernel's form; `None` when the address family is neither IPv4 nor IPv6.
    ///
    /// IPv4-mapped IPv6 addresses become the IPv4 addresses that they stand for.
    #[must_use]
    pub fn from_tuple(tuple: &Tuple) -> Option<Self> {
        let address = |bytes: [u8; 16], port| {
            let ip = match tuple.family {
                AF_INET => std::net::Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
                AF_INET6 => std::net::Ipv6Addr::from(bytes).to_canonical(),
                _ => return None,
            };
            Some(SocketAddr::new(ip, port))
        };
        Some(Self {
            local: address(tuple.local, tuple.local_port)?,
            remote: address(tuple.remote, tuple.remote_port)?,
        })
    }
}

/// State of the PostgreSQL dialogue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WireState {
    /// The startup message is not answered yet.
    Startup,
    /// Ready for a query, outside a transaction.
    Idle,
    /// A request is unanswered.
    Busy,
    /// Ready for a query, inside a transaction.
    InTransaction,
    /// Ready for a query, inside a failed transaction.
    FailedTransaction,
    /// In COPY.
    Copy,
    /// Streaming replication.
    Replication,
    /// Cannot be known: encrypted, not PostgreSQL, or not seen.
    #[default]
    Unknown,
}

/// What the wire tells of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wire {
    /// Where the dialogue stands.
    pub state: WireState,
    /// Whether it is encrypted.
    pub tls: bool,
    /// The client has sent `LISTEN`.
    pub listens: bool,
    /// It was opened to cancel a request on another connection.
    pub cancels: bool,
    /// SQLSTATE of the error with which the server refused the startup message.
    pub refused: Option<String>,
    /// The startup message's user.
    pub user: Option<String>,
    /// The startup message's database.
    pub database: Option<String>,
    /// The startup message's `application_name`.
    pub application_name: Option<String>,
    /// PID of the server's backend.
    pub backend_pid: Option<u32>,
}

/// A connection's counters as the kernel programs keep them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Who opened it, or used it first when it was adopted.
    pub opener: Caller,
    /// When it was opened, or first seen when it was adopted.
    pub opened_at: Timestamp,
    /// It existed before tracing began, or its `connect()` was missed.
    pub adopted: bool,
    /// Both ends.
    pub endpoints: Endpoints,
    /// TCP state.
    pub tcp_state: TcpState,
    /// When the TCP state last changed; for an adopted connection, when it was first seen.
    pub state_changed_at: Timestamp,
    /// Payload bytes sent since it was opened or adopted.
    pub bytes_sent: u64,
    /// Payload bytes received since it was opened or adopted.
    pub bytes_received: u64,
    /// When payload was last sent.
    pub last_send: Option<Timestamp>,
    /// When payload was last received.
    pub last_receive: Option<Timestamp>,
    /// Requests begun so far; the number of the latest one.
    pub requests: u64,
    /// When the latest request began.
    pub request_at: Option<Timestamp>,
    /// Process and thread that began it.
    pub request_by: Option<(u32, u32)>,
    /// More than one thread has begun requests on it, its opener counted in.
    pub moved: bool,
    /// PostgreSQL's state.
    pub wire: Wire,
}

/// A socket as sock_diag reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedSocket {
    /// Cookie.
    pub id: ConnectionId,
    /// Both ends.
    pub endpoints: Endpoints,
    /// TCP state.
    pub tcp_state: TcpState,
    /// Bytes that lie unread in the socket.
    pub unread_bytes: u32,
    /// Payload bytes that the peer has acknowledged, over the connection's whole life.
    pub bytes_sent: u64,
    /// Payload bytes received, over the connection's whole life.
    pub bytes_received: u64,
    /// When payload was last sent; for a connection never used, when it was established.
    pub last_send: Timestamp,
    /// When payload was last received; for a connection never used, when it was established.
    pub last_receive: Timestamp,
    /// Processes that have the socket among their file descriptors.
    pub held_by: Vec<ProcessKey>,
}

/// A use of a connection: from its first request until the server is idle again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    /// Number of its first request.
    pub request: u64,
    /// When that began.
    pub acquired_at: Timestamp,
    /// When the server was seen to be idle again; `None` when it was not, or cannot be.
    pub released_at: Option<Timestamp>,
    /// Process that began it.
    pub pid: u32,
    /// Thread that began it.
    pub tid: u32,
    /// Goroutine that began it.
    pub goroutine: Option<u64>,
    /// Stack of its first request.
    pub stack: Option<StackId>,
}

/// Which of a connection's stacks one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StackRole {
    /// The stack that called `connect()`.
    OpenedBy,
    /// The stack of this request, counted from 1.
    LastUsedBy {
        /// The request's number.
        request: u64,
    },
    /// The stack of the use that began with this request.
    UsedBy {
        /// The request's number.
        request: u64,
    },
}

/// Something that happened, or was found to be so, to one connection or to the whole table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A process called `connect()`.
    Opened {
        /// The connection.
        id: ConnectionId,
        /// When.
        at: Timestamp,
        /// Who.
        caller: Caller,
        /// Both ends; the local port may be 0.
        endpoints: Endpoints,
    },
    /// The handshake is done.
    Established {
        /// The connection.
        id: ConnectionId,
        /// When.
        at: Timestamp,
        /// Both ends.
        endpoints: Endpoints,
    },
    /// The handshake failed or was given up.
    Failed {
        /// The connection.
        id: ConnectionId,
        /// When.
        at: Timestamp,
        /// The socket's error number, when it had one.
        errno: Option<i32>,
    },
    /// The socket is gone.
    Closed {
        /// The connection.
        id: ConnectionId,
        /// When.
        at: Timestamp,
        /// Its final counters.
        usage: Box<Usage>,
    },
    /// The kernel programs' counters of a live connection, as read in an interval.
    Used {
        /// The connection.
        id: ConnectionId,
        /// Its counters.
        usage: Box<Usage>,
    },
    /// The kernel programs' counters of these live connections say what they said when they were last
    /// told.
    Unchanged {
        /// The connections.
        ids: Vec<ConnectionId>,
    },
    /// Everything that sock_diag listed, in every network namespace that could be read: what the
    /// table holds besides is gone. The dump began at `began`; what was opened later is not judged
    /// by it.
    Inventory {
        /// When the dump began.
        began: Timestamp,
        /// Live connections to traced ports.
        sockets: Vec<ListedSocket>,
        /// Whether every network namespace could be read; when not, absence proves nothing.
        complete: bool,
    },
    /// The latest uses of a connection, the oldest first, in place of what was told of them before.
    Uses {
        /// The connection.
        id: ConnectionId,
        /// The uses.
        uses: Vec<Use>,
    },
    /// A stack was unwound and symbolized.
    StackResolved {
        /// The connection.
        id: ConnectionId,
        /// Which of its stacks.
        role: StackRole,
        /// The stack; `None` when it was looked for and could not be had.
        stack: Option<StackId>,
        /// The goroutine that ran, in a Go program.
        goroutine: Option<u64>,
    },
    /// A server was asked for its sessions.
    ServerSessions {
        /// Its name.
        server: String,
        /// When it was asked.
        at: Timestamp,
        /// What it answered.
        answer: Box<ServerAnswer>,
    },
    /// The thread that began a connection's latest request has ended.
    UserGone {
        /// The connection.
        id: ConnectionId,
        /// The request's number.
        request: u64,
    },
}
