//! What a detector says.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::engine::detect::{
    CodeKey, Evidence, Reason, RetractionWords, Severity, StackOf, detector_of, place,
};
use crate::engine::table::Identity;
use crate::model::{ConnectionId, ProcessKey, StackId};
use leak_stacks::Frame;

/// What verdicts of one kind are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Connections, one by one. A connection is accused of one thing at a time, the surest.
    Connections,
    /// A pool as a whole, whatever its connections are accused of besides. Which of them stand for
    /// it changes all the time.
    Pool,
}

/// What a detector has against some connections of one process to one server that one piece of
/// code used or opened.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// What is wrong.
    pub reason: Reason,
    /// How much it weighs.
    pub severity: Severity,
    /// The process that opened them.
    pub process: ProcessKey,
    /// The server.
    pub remote: SocketAddr,
    /// The pool, where the verdict is about a pool.
    pub pool: Option<Identity>,
    /// The connections, in order.
    pub connections: Vec<ConnectionId>,
    /// Why, in numbers; as a sentence when it is displayed.
    pub evidence: Arc<dyn Evidence>,
    /// Which stack `stack` is.
    pub stack_of: StackOf,
    /// The stack that the connections have in common, or most of them, where they have the code
    /// that is to blame in common.
    pub stack: Option<StackId>,
    /// The code that is to blame: the same for every stack that leads to it.
    pub cause: Option<CodeKey>,
}

impl Verdict {
    /// What it is about.
    #[must_use]
    pub fn scope(&self) -> Scope {
        detector_of(self.reason).scope()
    }

    /// What is said when it is no longer true.
    #[must_use]
    pub fn retraction(&self) -> RetractionWords {
        detector_of(self.reason).retraction()
    }

    /// Where to look and what for. `None` when nothing is to be done. `culprit` is the frame of its
    /// stack that belongs to the application.
    #[must_use]
    pub fn next_step(&self, culprit: Option<&Frame>) -> Option<String> {
        detector_of(self.reason).next_step(self.severity, &place::of(self.stack_of, culprit))
    }
}
