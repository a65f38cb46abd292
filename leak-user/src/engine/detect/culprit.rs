//! The code that a verdict blames, and what says so.

use schemars::JsonSchema;
use serde::Serialize;

use crate::engine::detect::StackOf;

/// What names the culprit of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CulpritFrom {
    /// It sent the last request on the connections.
    LastUse,
    /// It opened the connections.
    Opener,
    /// It sends the statement that the server says was the last one on the connections.
    Statement,
}

impl From<StackOf> for CulpritFrom {
    fn from(stack_of: StackOf) -> Self {
        match stack_of {
            StackOf::OpenedBy => Self::Opener,
            StackOf::LastUsedBy => Self::LastUse,
        }
    }
}

/// The frame of a verdict's stack that is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Culprit {
    /// Its index in the stack.
    pub frame: usize,
    /// What names it.
    pub from: CulpritFrom,
}

/// How uses that ended in the same code went on: a sample of those that gave their connection back,
/// and those that kept it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CulpritUses {
    /// After how many the connection was used again.
    pub returned: usize,
    /// How many kept their connection.
    pub kept: usize,
}
