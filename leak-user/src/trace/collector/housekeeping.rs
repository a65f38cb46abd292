//! Noticing who has gone.

use std::io;

use crate::clock;
use crate::engine::Fact;
use crate::model::Event;
use crate::sources::procfs;
use crate::trace::collector::Collector;

impl Collector {
    /// Tells of connections that are on their way to being called silent, and that only one thread
    /// has used, when that thread is gone.
    pub(super) fn look_for_gone_users(&mut self) -> io::Result<()> {
        let silent_for = self.engine.thresholds().silent_after / 2;
        let bound = self.engine.bound_to_threads(silent_for, clock::now());
        let gone: Vec<_> = bound
            .filter(|&(_, _, (pid, tid))| !procfs::has_thread(pid, tid))
            .map(|(id, request, _)| Event::UserGone { id, request })
            .collect();
        gone.into_iter().try_for_each(|event| self.tell(&Fact::Event(event)))
    }

    /// Tells which processes have exited, and lets go of those that have no connection any more.
    ///
    /// It matters of those that stand accused and of those without a connection; the others live.
    pub(super) fn look_for_exits(&mut self) -> io::Result<()> {
        let in_use = self.engine.processes_in_use();
        let unused = self.met.iter().filter(|process| !in_use.contains(process));
        let mut watched = self.engine.accused();
        watched.extend(unused);
        for process in watched {
            if procfs::is_running(process) {
                continue;
            }
            if !self.engine.has_exited(process) {
                self.tell(&Fact::Exited(process))?;
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
