//! The counters that were told last: most connections rest, and theirs need not be told again.

use std::collections::HashMap;

use crate::event::{ConnectionId, Event, Usage};

/// What is known of one connection.
struct Latest {
    usage: Box<Usage>,
    /// It was told since the last inventory.
    told: bool,
}

/// The latest counters of each connection. Writer and reader keep the same.
#[derive(Default)]
pub(super) struct Counters {
    latest: HashMap<ConnectionId, Latest>,
}

impl Counters {
    /// Whether these are the counters that were told last.
    pub(super) fn know(&mut self, id: ConnectionId, usage: &Usage) -> bool {
        self.again(id).is_some_and(|latest| latest == usage)
    }

    /// The counters that were told last, which are told again.
    pub(super) fn again(&mut self, id: ConnectionId) -> Option<&Usage> {
        let latest = self.latest.get_mut(&id)?;
        latest.told = true;
        Some(&latest.usage)
    }

    /// Takes note of an event. What is over, or was not told between two inventories, is forgotten.
    pub(super) fn learn(&mut self, event: &Event) {
        match event {
            Event::Used { id, usage } => {
                self.latest.insert(*id, Latest { usage: usage.clone(), told: true });
            }
            Event::Closed { id, .. } | Event::Failed { id, .. } => {
                self.latest.remove(id);
            }
            Event::Inventory { .. } => {
                self.latest.retain(|_, latest| std::mem::take(&mut latest.told));
            }
            _ => {}
        }
    }
}
