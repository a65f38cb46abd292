//! Connections that ended recently.

use std::collections::{HashMap, VecDeque};

use crate::model::{ConnectionId, Timestamp};

/// Most ends remembered.
const MAX_GONE: usize = 16_384;

/// Remembers ends for a while. Counters and inventories read before an end may arrive after it, and
/// must not bring the connection back.
#[derive(Debug, Default)]
pub(super) struct Gone {
    ends: HashMap<ConnectionId, Timestamp>,
    order: VecDeque<ConnectionId>,
}

impl Gone {
    /// Remembers that `id` ended at `at`.
    pub(super) fn insert(&mut self, id: ConnectionId, at: Timestamp) {
        if self.ends.insert(id, at).is_none() {
            self.order.push_back(id);
        }
        if self.order.len() > MAX_GONE
            && let Some(oldest) = self.order.pop_front()
        {
            self.ends.remove(&oldest);
        }
    }

    /// When `id` ended, if it did so recently.
    pub(super) fn at(&self, id: ConnectionId) -> Option<Timestamp> {
        self.ends.get(&id).copied()
    }

    /// The socket is in use again.
    pub(super) fn remove(&mut self, id: ConnectionId) {
        if self.ends.remove(&id).is_some() {
            self.order.retain(|&other| other != id);
        }
    }
}
