//! Listing what exists, according to the kernel, beside the event loop.

use tokio::task::{JoinHandle, spawn_blocking};

use crate::engine::Engine;
use crate::engine::table::Connection;
use crate::model::{ListedSocket, TcpState, Timestamp};
use crate::sources::inventory::{Inventory, InventoryError, Scope};
use crate::trace::feedback;

/// An inventory under way.
pub(super) type Taking = JoinHandle<Result<Inventory, InventoryError>>;

/// Takes inventories, and warns once of what they do not show.
#[derive(Debug)]
pub(super) struct Inventories {
    ports: Vec<u16>,
    warned: Warned,
}

/// Warnings that were given.
#[derive(Clone, Copy, Debug, Default)]
struct Warned {
    namespaces: bool,
    holders: bool,
    table_full: bool,
}

impl Inventories {
    pub(super) fn new(ports: Vec<u16>) -> Self {
        Self { ports, warned: Warned::default() }
    }

    /// Begins to list what exists.
    pub(super) fn start(&self, scope: Scope, engine: &Engine) -> Taking {
        let (ports, known) = (self.ports.clone(), feedback::known_connections(engine));
        spawn_blocking(move || Inventory::take(&ports, &scope, &known))
    }

    /// Says once what cannot be seen. `untraced` connections found no room in the kernel's table.
    pub(super) fn warn_of_gaps(&mut self, inventory: &Inventory, untraced: u64) {
        let first = |said: &mut bool| !std::mem::replace(said, true);
        if let Some(reason) = &inventory.unread_reason
            && first(&mut self.warned.namespaces)
        {
            log::warn!("{reason}; connections there are followed only once they are used");
        }
        if let Some(unread) = inventory.unread_processes.describe()
            && first(&mut self.warned.holders)
        {
            log::warn!("{unread}");
        }
        if untraced > 0 && first(&mut self.warned.table_full) {
            log::warn!(
                "{untraced} connections are not traced because the kernel's table is full; raise \
                 --max-connections"
            );
        }
    }
}

/// What sock_diag would say of a connection that is closed but held by its process, if it listed
/// such connections. What only sock_diag tells stays as it was. `None` when it is not closed, or
/// nobody holds it: then its end was missed.
pub(super) fn closed_but_held(engine: &Engine, known: &Connection) -> Option<ListedSocket> {
    if known.tcp.state != TcpState::Close {
        return None;
    }
    // Until it is listed, whoever opened it has it.
    let is_listed = known.traffic.unread_bytes.is_some();
    let mut held_by = if is_listed { known.held_by.clone() } else { vec![known.process] };
    held_by.retain(|&holder| !engine.has_exited(holder));
    if held_by.is_empty() {
        return None;
    }
    let used = |moment: Option<Timestamp>| moment.unwrap_or(known.first_seen);
    Some(ListedSocket {
        id: known.id,
        endpoints: known.endpoints,
        tcp_state: known.tcp.state,
        unread_bytes: 0,
        bytes_sent: known.traffic.bytes_sent,
        bytes_received: known.traffic.bytes_received,
        last_send: used(known.traffic.last_send),
        last_receive: used(known.traffic.last_receive),
        held_by,
    })
}
