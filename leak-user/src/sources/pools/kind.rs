//! What a kind of pool has to tell of itself.

use std::time::Instant;

use crate::model::WireState;
use crate::model::pools::PoolNumbers;
use crate::sources::pools::go_values::GoValues;

/// Most connections of one pool that are looked at.
pub(super) const MAX_CONNECTIONS: usize = 10_000;

/// A kind of pool in programs written in Go.
pub(super) trait Kind: Sync {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// Whether a goroutine that was started by the function `creator` is one that each pool of this
    /// kind has.
    fn has_goroutine_of(&self, creator: &str) -> bool;

    /// Addresses on a goroutine's `stack` that are those of such a pool.
    fn find(&self, values: &GoValues<'_>, stack: &[u64]) -> Vec<u64>;

    /// Reads the pool at `address`.
    fn read(&self, values: &GoValues<'_>, address: u64, until: Instant) -> KindPool;
}

/// What was read of a pool.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct KindPool {
    /// Its numbers, when they were had.
    pub(super) numbers: Option<PoolNumbers>,
    /// Descriptors of its connections, and whether each is checked out.
    pub(super) descriptors: Vec<(u64, bool)>,
    /// Descriptors of those of which the driver has told where the session stands.
    pub(super) sessions: Vec<(u64, WireState)>,
}
