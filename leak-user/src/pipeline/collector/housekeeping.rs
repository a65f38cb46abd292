//! Letting go of what is not needed any more.

use std::collections::HashSet;

use super::Collector;
use crate::process;

impl Collector {
    /// Lets go of processes that are gone and have no connection any more, and of stacks that nothing
    /// refers to.
    pub(super) fn forget_the_gone(&mut self) {
        let mut processes = HashSet::new();
        let mut stacks = HashSet::new();
        for connection in self.table.connections() {
            processes.insert(connection.process);
            processes.extend(&connection.held_by);
            stacks.extend(connection.opened_by.iter().chain(&connection.last_used_by));
        }
        let mut reported = HashSet::new();
        for finding in self.ledger.open().into_iter().chain(self.ledger.retracted()) {
            reported.insert(finding.verdict.process);
            stacks.extend(&finding.verdict.stack);
        }
        self.stacks.retain(|id, _| stacks.contains(id));
        self.departed.retain(|process| self.processes.contains_key(process));
        for &process in self.processes.keys() {
            if !processes.contains(&process)
                && !process::is_running(process)
                && self.departed.insert(process)
            {
                self.resolver.forget(process);
                self.tracer.forget_process(process.pid);
            }
        }
        // What is reported keeps its description.
        let (table, departed) = (&self.table, &self.departed);
        self.processes.retain(|process, _| {
            !departed.contains(process)
                || reported.contains(process)
                || table.process(*process).is_some()
        });
        self.targets.prune();
    }
}
