//! What connections, processes and stacks are known by.

use serde::{Deserialize, Serialize};

pub use leak_stacks::{ProcessKey, StackId};

/// A connection's identity: the kernel's socket cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConnectionId(pub u64);
