//! What a detector says of connections or a pool.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::engine::detect::{CodeKey, Culprit, CulpritUses, Evidence, Reason, Severity, StackOf};
use crate::engine::fate::Fate;
use crate::engine::senders::Sender;
use crate::engine::table::Identity;
use crate::model::{ConnectionId, ProcessKey, StackId};

/// What the verdicts of a detector are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Single connections. Each is accused of one thing at a time, by the surest evidence.
    Connections,
    /// A pool, whatever its connections are accused of besides. The connections that represent it
    /// change all the time.
    Pool,
    /// A server, whoever is connected to it, and whatever its connections are accused of besides.
    Server,
}

/// A problem with some connections of one process to one server that the same code used or opened.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// What is wrong.
    pub reason: Reason,
    /// Its severity.
    pub severity: Severity,
    /// The process that opened them.
    pub process: ProcessKey,
    /// The server.
    pub remote: SocketAddr,
    /// The pool, where the verdict is about a pool.
    pub pool: Option<Identity>,
    /// The connections, in order.
    pub connections: Vec<ConnectionId>,
    /// The numbers that prove it; displayed, they are a sentence.
    pub evidence: Arc<dyn Evidence>,
    /// Which stack `stack` is.
    pub stack_of: StackOf,
    /// The stack of all the connections, or of most of them, where they have the code to blame in
    /// common.
    pub stack: Option<StackId>,
    /// The code to blame: the same for every stack that leads to it.
    pub cause: Option<CodeKey>,
    /// The frame of `stack` that is to blame, and what says so; `None` when nobody is named.
    pub culprit: Option<Culprit>,
    /// How uses by the same code ended: the culprit's, or the last user's where nobody is named.
    /// `None` when no other uses were seen, or they say nothing.
    pub culprit_uses: Option<CulpritUses>,
    /// Who sends the connections' last statement, where no stack blames anybody.
    pub sender: Option<Sender>,
    /// What became of the connections, where all of them have the same fate.
    pub fate: Fate,
}
