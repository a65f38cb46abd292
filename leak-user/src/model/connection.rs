//! What is known of one connection: who uses it, its counters, its uses.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::model::{ConnectionId, ProcessKey, StackId, TcpState, Timestamp, Wire};

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
    /// The process that opened it exited with it open.
    #[serde(default)]
    pub closed_at_exit: bool,
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
