//! What events mean for connections, for detectors that remember more than the table does.

use std::time::Duration;

use crate::engine::table::{Connection, PoolKey, PoolObserver, Pools};
use crate::model::{ConnectionId, StackId, Timestamp, WireState};

/// A request that has begun on a connection.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The connection.
    pub id: ConnectionId,
    /// Its pool, as far as it was known until then.
    pub pool: &'a PoolKey,
    /// When it began; `None` when nobody saw.
    pub at: Option<Timestamp>,
    /// Since when the connection had been silent.
    pub silent_since: Timestamp,
    /// The stack of the request before; `None` when that is unknown, or there was none.
    pub after: Option<&'a StackId>,
    /// Where the dialogue stood after that one.
    pub left: WireState,
}

/// Is told what events mean for connections while the table applies them.
///
/// The table is as it was before the event, except for a connection that the event adds.
pub trait Observer: PoolObserver {
    /// A request has begun.
    fn request_began(&mut self, _request: Request<'_>, _pools: &Pools) {}

    /// A request on a connection of the pool was answered after so long.
    fn answered(&mut self, _pool: &PoolKey, _after: Duration, _pools: &Pools) {}

    /// The stack of a request has become known, after a later request had begun.
    fn earlier_request_resolved(
        &mut self,
        _id: ConnectionId,
        _pool: &PoolKey,
        _stack: &StackId,
        _now: Timestamp,
        _pools: &Pools,
    ) {
    }

    /// This thread began the latest request on a connection of the pool.
    fn used_by(&mut self, _pool: &PoolKey, _tid: u32, _at: Timestamp, _pools: &Pools) {}

    /// The thread that began the latest request on a connection has ended.
    fn user_gone(&mut self, _id: ConnectionId) {}

    /// A connection has ended. `age` is how old it got; `None` when that is unknown, or it was
    /// never established.
    fn ended(
        &mut self,
        _connection: &Connection,
        _pool: &PoolKey,
        _age: Option<Duration>,
        _pools: &Pools,
    ) {
    }
}

#[cfg(test)]
impl Observer for () {}

#[cfg(test)]
impl PoolObserver for () {
    fn pools_forgotten(
        &mut self,
        _process: crate::model::ProcessKey,
        _remote: std::net::SocketAddr,
    ) {
    }
}
