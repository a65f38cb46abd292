//! Decodes slots of the arrays that the kernel programs share: connections and their uses.

use leak_common::connection::{Connection, FirstBytes, Uses, flag};

use crate::model::{ConnectionId, Event, TcpState, Timestamp, Usage, Use};
use crate::sources::kernel::decode::error::DecodeError;
use crate::sources::kernel::decode::fields::{caller, endpoints, timestamp};
use crate::sources::kernel::decode::postgres::wire;

/// Decodes a slot of the table of connections, with the first bytes of its dialogue if they were
/// kept. `None` for a connection that could not be established: its failure was an event.
///
/// # Errors
///
/// When the slot holds values that the kernel programs never write.
pub fn slot(
    connection: &Connection,
    first_bytes: Option<&FirstBytes>,
) -> Result<Option<Event>, DecodeError> {
    if connection.flags & flag::FAILED != 0 {
        return Ok(None);
    }
    let usage = Box::new(usage(connection, first_bytes)?);
    Ok(Some(Event::Used { id: ConnectionId(connection.cookie), usage }))
}

/// Decodes the latest uses of a connection, oldest first. `kept` is how many the ring of uses
/// holds.
#[must_use]
pub fn uses(uses: &Uses, kept: u32) -> Vec<Use> {
    let kept = u64::from(kept).clamp(1, uses.uses.len() as u64);
    (uses.begun.saturating_sub(kept)..uses.begun)
        .filter_map(|number| uses.uses.get((number % kept) as usize))
        .map(|one| Use {
            request: one.request,
            acquired_at: Timestamp(one.acquired_ns),
            released_at: timestamp(one.released_ns),
            pid: one.tgid,
            tid: one.tid,
            goroutine: None,
            stack: None,
        })
        .collect()
}

/// The counters and state of one connection.
pub(super) fn usage(
    connection: &Connection,
    first_bytes: Option<&FirstBytes>,
) -> Result<Usage, DecodeError> {
    let request_at = timestamp(connection.request_ns);
    Ok(Usage {
        opener: caller(&connection.opener),
        opened_at: Timestamp(connection.opened_ns),
        adopted: connection.flags & flag::ADOPTED != 0,
        endpoints: endpoints(&connection.tuple)?,
        tcp_state: TcpState::from_kernel(connection.tcp_state)
            .ok_or(DecodeError::UnknownState(connection.tcp_state))?,
        state_changed_at: Timestamp(connection.state_changed_ns),
        bytes_sent: connection.bytes_sent,
        bytes_received: connection.bytes_received,
        last_send: timestamp(connection.last_send_ns),
        last_receive: timestamp(connection.last_receive_ns),
        requests: connection.requests,
        request_at,
        moved: connection.flags & flag::MOVED != 0,
        request_by: request_at.map(|_| (connection.request_tgid, connection.request_tid)),
        wire: wire(connection, first_bytes),
        closed_at_exit: connection.flags & flag::CLOSED_AT_EXIT != 0,
    })
}
