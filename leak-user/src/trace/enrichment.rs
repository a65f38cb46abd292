//! What is known of processes besides their connections: procfs describes them, Kubernetes names
//! their pods and the servers that they connect to.

use std::collections::HashSet;

use crate::clock;
use crate::engine::Engine;
use crate::model::{Fact, ProcessInfo, ProcessKey};
use crate::outputs::OutputError;
use crate::sources::kubernetes::Pods;
use crate::sources::procfs;
use crate::trace::feedback;
use crate::trace::session::Session;
use crate::trace::stack_requests::StackRequests;

/// Describes processes when they first appear, and notices when they are gone.
pub(super) struct Enrichment {
    pods: Pods,
    /// Processes that were described and still matter.
    met: HashSet<ProcessKey>,
}

impl Enrichment {
    pub(super) fn new(pods: Pods) -> Self {
        Self { pods, met: HashSet::new() }
    }

    /// Describes a process when it first appears: it may be gone at the next look. `comm` is the
    /// name that it had when it connected; without one, the process was found, and did not just
    /// connect.
    pub(super) fn meet(
        &mut self,
        process: ProcessKey,
        comm: Option<&str>,
        stacks: &mut StackRequests,
        session: &mut Session,
    ) -> Result<(), OutputError> {
        if session.engine().describes(process) {
            return Ok(());
        }
        if comm.is_some() {
            // It has just connected, and may be about to exit: its binaries come first.
            stacks.first_sight(process);
        }
        let info = procfs::describe(process).or_else(|error| {
            log::debug!("process {}: {error}", process.pid);
            comm.map(|comm| ProcessInfo::gone(process, comm)).ok_or(error)
        });
        let Ok(mut info) = info else { return Ok(()) };
        info.pod = self.pods.find(&info);
        self.met.insert(process);
        if comm.is_none() {
            stacks.first_sight(process);
        }
        session.tell(clock::now(), &Fact::Process(info))
    }

    /// The processes of which Kubernetes now says something else, and the addresses that have
    /// another name. It may name a pod only after its first process has connected, and labels
    /// change. A process keeps its pod when Kubernetes no longer knows it.
    pub(super) fn renamed(&self, engine: &Engine) -> Vec<Fact> {
        let processes = engine.processes().filter_map(|info| {
            let pod = self.pods.find(info).filter(|pod| info.pod.as_ref() != Some(pod))?;
            Some(Fact::Process(ProcessInfo { pod: Some(pod), ..info.clone() }))
        });
        let names = self.pods.destinations().into_iter();
        let addresses = names
            .filter(|(address, name)| engine.destination(*address) != Some(name))
            .inspect(|(address, name)| log::debug!("{address} is {name}"))
            .map(|(address, name)| Fact::Destination { address, name });
        processes.chain(addresses).collect()
    }

    /// Has Kubernetes name the addresses that there are connections to.
    pub(super) fn name_addresses(&self, engine: &Engine) {
        feedback::name_addresses(engine, &self.pods);
    }

    /// The processes that are to be forgotten, since they have exited and have no connection any
    /// more. Tells the engine which processes have exited.
    pub(super) fn look_for_exits(
        &mut self,
        session: &mut Session,
    ) -> Result<Vec<ProcessKey>, OutputError> {
        let in_use = session.engine().processes_in_use();
        let mut forgotten = Vec::new();
        for process in feedback::processes_to_check(session.engine(), &in_use, &self.met) {
            if procfs::is_running(process) {
                continue;
            }
            if !session.engine().has_exited(process) {
                session.tell(clock::now(), &Fact::Exited(process))?;
            }
            if !in_use.contains(&process) && self.met.remove(&process) {
                forgotten.push(process);
            }
        }
        Ok(forgotten)
    }
}
