//! Whose threads to look at, and what was seen of them.

use std::collections::HashSet;
use std::time::Duration;

use crate::engine::table::{ConnectionTable, Waiting};
use crate::model::{ProcessKey, Timestamp};

impl ConnectionTable {
    /// Processes of which no connection was used for `silent_for`, but for those that are at work:
    /// a pool may be exhausted there.
    #[must_use]
    pub fn processes_at_rest(&self, silent_for: Duration, now: Timestamp) -> HashSet<ProcessKey> {
        let (mut resting, mut working) = (HashSet::new(), HashSet::new());
        for connection in self.connections.values() {
            if connection.silent_for(now) >= silent_for {
                resting.insert(connection.process);
            } else if !connection.is_busy() {
                working.insert(connection.process);
            }
        }
        resting.retain(|process| !working.contains(process));
        resting
    }

    /// Who waits for a connection in a process; `None`: nobody has looked.
    #[must_use]
    pub fn waiting(&self, process: ProcessKey) -> Option<&Waiting> {
        self.waiting.get(process)
    }

    /// Who waits for a connection, in all processes that were looked at.
    pub fn all_waiting(&self) -> impl Iterator<Item = (ProcessKey, &Waiting)> {
        self.waiting.iter()
    }

    /// Forgets who waits in processes that do not matter any more.
    pub(in crate::engine) fn keep_waiting(&mut self, matters: impl Fn(ProcessKey) -> bool) {
        self.waiting.retain(matters);
    }
}
