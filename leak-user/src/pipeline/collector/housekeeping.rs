//! Noticing who has gone.

use std::io;

use super::Collector;
use crate::engine::Fact;
use crate::process;

impl Collector {
    /// Tells which processes have exited, and lets go of those that have no connection any more.
    ///
    /// It matters of those that stand accused and of those without a connection; the others live.
    pub(super) fn look_for_exits(&mut self) -> io::Result<()> {
        let in_use = self.engine.processes_in_use();
        let unused = self.met.iter().filter(|process| !in_use.contains(process));
        let mut watched = self.engine.accused();
        watched.extend(unused);
        for process in watched {
            if process::is_running(process) {
                continue;
            }
            if !self.engine.has_exited(process) {
                self.tell(Fact::Exited(process))?;
            }
            if !in_use.contains(&process) && self.met.remove(&process) {
                self.resolver.forget(process);
                self.tracer.forget_process(process.pid);
            }
        }
        self.targets.prune();
        Ok(())
    }
}
