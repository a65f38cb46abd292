//! The state of a PostgreSQL session, as its messages tell it.

pub(crate) mod startup;

use leak_common::connection::{Connection, FirstBytes, flag, phase, state};

use crate::model::{Wire, WireState};
use crate::sources::kernel::decode::fields::timestamp;

/// Decodes the state of the dialogue. The startup message and its refusal are in `first_bytes`.
pub(super) fn wire(connection: &Connection, first_bytes: Option<&FirstBytes>) -> Wire {
    let (startup, refusal) = first_bytes.map_or((&[][..], &[][..]), |kept| {
        (
            beginning(&kept.startup, connection.startup_len),
            beginning(&kept.refusal, connection.refusal_len),
        )
    });
    let startup = startup::parse(startup);
    let refusal = startup::refusal(refusal);
    let state = match (connection.phase, connection.wire) {
        (phase::NEW | phase::ENCRYPTION_ASKED | phase::STARTUP, _) => WireState::Startup,
        (phase::READY, _) if startup.replication => WireState::Replication,
        (phase::READY, state::IDLE) => WireState::Idle,
        (phase::READY, state::BUSY) => WireState::Busy,
        (phase::READY, state::IN_TRANSACTION) => WireState::InTransaction,
        (phase::READY, state::FAILED_TRANSACTION) => WireState::FailedTransaction,
        (phase::READY, state::COPY) => WireState::Copy,
        (phase::READY, state::REPLICATION) => WireState::Replication,
        _ => WireState::Unknown,
    };
    Wire {
        state,
        tls: connection.phase == phase::ENCRYPTED,
        listens: connection.flags & flag::LISTENS != 0,
        cancels: connection.flags & flag::CANCELS != 0,
        refused: refusal.as_ref().map(|refusal| refusal.sqlstate.clone()),
        user: startup.user,
        database: startup.database,
        application_name: startup.application_name,
        backend_pid: (connection.backend_pid != 0).then_some(connection.backend_pid),
        refused_why: refusal.and_then(|refusal| refusal.why),
        transaction_at: timestamp(connection.transaction_ns),
        transaction_moved: connection.flags & flag::TRANSACTION_MOVED != 0,
        encryption_agreed: connection.flags & flag::ENCRYPTION_AGREED != 0,
    }
}

/// The first `len` bytes, or all if there are fewer.
fn beginning(bytes: &[u8], len: u32) -> &[u8] {
    bytes.get(..len as usize).unwrap_or(bytes)
}
