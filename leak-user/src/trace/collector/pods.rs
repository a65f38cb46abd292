//! Giving processes the names of their pods, and servers theirs.

use std::io;

use crate::engine::Fact;
use crate::trace::collector::Collector;

impl Collector {
    /// Tells once more of the processes of which Kubernetes now says something else: it may name a pod
    /// only after its first process has connected, and labels change. What was said of pods that are
    /// gone stays true of their processes.
    pub(in crate::trace) fn name_pods(&mut self) -> io::Result<()> {
        let renamed: Vec<_> = self
            .engine
            .processes()
            .filter_map(|info| {
                let pod = self.pods.find(info).filter(|pod| info.pod.as_ref() != Some(pod))?;
                let mut info = info.clone();
                info.pod = Some(pod);
                Some(info)
            })
            .collect();
        renamed.into_iter().try_for_each(|info| self.tell(&Fact::Process(info)))?;
        for (address, name) in self.pods.destinations() {
            if self.engine.destination(address) != Some(&name) {
                log::debug!("{address} is {name}");
                self.tell(&Fact::Destination { address, name })?;
            }
        }
        Ok(())
    }

    /// Has Kubernetes name the servers that there are connections to. Loopback is nobody else's.
    pub(super) fn want_destinations(&self) {
        let remotes = self.engine.table().connections().map(|open| open.endpoints.remote.ip());
        let addresses = remotes.map(|address| address.to_canonical());
        self.pods.want(addresses.filter(|address| !address.is_loopback()));
    }
}
