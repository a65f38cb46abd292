//! Who holds the slots of a server that has none left.

use std::time::Duration;

use crate::engine::detect::culprit::Culprit;
use crate::engine::detect::reason::StackOf;
use crate::model::{ProcessKey, StackId};

/// Connections of one process that the same code uses.
#[derive(Clone, Debug)]
pub struct Holder {
    /// The process that opened them.
    pub process: ProcessKey,
    /// Which stack `stack` is.
    pub stack_of: StackOf,
    /// The stack that most of them show.
    pub stack: Option<StackId>,
    /// The frame of `stack` that stands for the code.
    pub culprit: Option<Culprit>,
    /// How many there are.
    pub count: usize,
    /// How many of them have been silent for long.
    pub silent: usize,
    /// How many wait for an answer.
    pub busy: usize,
    /// How many are idle in a transaction.
    pub in_transaction: usize,
}

/// Refused connections, and those that take the slots.
#[derive(Clone, Debug)]
pub struct NoSlotLeft {
    /// How many connections were refused.
    pub refused: u64,
    /// How many processes wanted them.
    pub processes: usize,
    /// How long ago the latest was refused.
    pub(super) latest: Duration,
    /// The server's words, the most frequent first.
    pub said: Vec<String>,
    /// Who holds slots, the most first.
    pub holders: Vec<Holder>,
}
