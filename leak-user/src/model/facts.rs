//! What the engine can be told: everything that it knows, it knows from facts.
//!
//! A recording keeps [`Fact`]s as they are. An [`Event`] is a fact of its own kind, one that the
//! table of connections takes; in recordings it stands inside of one, so the two stay apart.

use std::net::IpAddr;
use std::sync::Arc;

use leak_stacks::{Frame, Stack};
use serde::{Deserialize, Serialize};

use crate::model::pools::ReadPool;
use crate::model::{
    Caller, ConnectionId, Destination, Endpoints, Health, ListedSocket, ProcessInfo, ProcessKey,
    ServerAnswer, StackId, StackRole, Timestamp, Usage, Use, Waiters, Whereabouts, WireState,
};

/// What the engine can be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// Something happened to connections, or was found out about them.
    Event(Event),
    /// What is known of a process.
    Process(ProcessInfo),
    /// A process has exited.
    Exited(ProcessKey),
    /// Kubernetes has a name for an address that processes connect to.
    Destination {
        /// The address; IPv4-mapped ones are canonicalised.
        address: IpAddr,
        /// What Kubernetes calls it.
        name: Destination,
    },
    /// A stack that later events refer to.
    Stack(Arc<Stack>),
    /// A statement was looked up in the program of a process.
    Sender {
        /// The process.
        process: ProcessKey,
        /// The statement, without its literals.
        statement: String,
        /// The code that has it; empty when none has, or when others may send it, too.
        code: Vec<Frame>,
    },
    /// An earlier run has seen who sends a statement.
    Learnt(Learnt),
    /// An interval is over: judge, and return what has changed.
    Judge(Health),
    /// The run is over: judge for the last time.
    End(Health),
}

/// Code that was seen to send a statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learnt {
    /// The program: one of the numbers of a [`ProgramId`](crate::model::ProgramId).
    pub program: u64,
    /// The statement, without its literals.
    pub statement: String,
    /// One place of each function that sends it; there is at least one.
    pub code: Vec<Frame>,
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
    /// The kernel programs' counters of these live connections say what they said when they were
    /// last told.
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
    /// The pools of a process were read from its memory. What was read of them before is outdated.
    PoolsRead {
        /// The process.
        process: ProcessKey,
        /// When reading began.
        at: Timestamp,
        /// All pools that were found.
        pools: Vec<ReadPool>,
    },
    /// The driver of a process was asked, in its memory, where sessions stand.
    StatesRead {
        /// The process.
        process: ProcessKey,
        /// When reading began.
        at: Timestamp,
        /// What it says of each connection that it was asked about.
        states: Vec<(ConnectionId, WireState)>,
    },
    /// The thread that began a connection's latest request has ended.
    UserGone {
        /// The connection.
        id: ConnectionId,
        /// The request's number.
        request: u64,
    },
    /// The threads of a process were looked at, or its goroutines: these wait for a connection.
    Waiting {
        /// The process.
        process: ProcessKey,
        /// When.
        at: Timestamp,
        /// All of them that were found.
        waiters: Vec<Waiters>,
    },
    /// Where the thread or goroutine that began a connection's latest request is now.
    UserSeen {
        /// The connection.
        id: ConnectionId,
        /// The request's number.
        request: u64,
        /// Where it is.
        place: Whereabouts,
    },
}
