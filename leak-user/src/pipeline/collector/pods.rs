//! Giving processes the names of their pods.

use std::io;

use super::Collector;
use crate::engine::Fact;

impl Collector {
    /// Tells once more of the processes of which Kubernetes now says something else: it may name a pod
    /// only after its first process has connected, and labels change. What was said of pods that are
    /// gone stays true of their processes.
    pub(in crate::pipeline) fn name_pods(&mut self) -> io::Result<()> {
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
        renamed.into_iter().try_for_each(|info| self.tell(&Fact::Process(info)))
    }
}
