//! Which processes are to be traced.

use std::collections::{HashMap, HashSet};

use crate::model::ProcessKey;
use crate::sources::inventory::Scope;
use crate::sources::procfs;
use crate::sources::procfs::name::CommPattern;
use crate::trace::{TraceError, TraceSettings};

/// The processes asked for, by number and by name.
pub(super) struct Targets {
    /// `None`: all.
    roots: Option<Vec<ProcessKey>>,
    children: bool,
    names: Vec<CommPattern>,
    /// This process, whose sessions with the servers are nobody's leak.
    own: u32,
    /// Processes by whether their name is wanted, as far as they were met.
    met: HashMap<ProcessKey, bool>,
}

impl Targets {
    /// Looks the processes up.
    ///
    /// # Errors
    ///
    /// When one does not exist.
    pub(super) fn find(settings: &TraceSettings) -> Result<Self, TraceError> {
        let (children, names) = (settings.kernel.children, settings.comm.clone());
        let mut roots = None;
        if let Some(wanted) = &settings.kernel.pids {
            let mut pids: HashSet<u32> = wanted.iter().copied().collect();
            for &pid in wanted {
                procfs::identify(pid).map_err(|source| TraceError::NoProcess { pid, source })?;
            }
            if children {
                pids = procfs::with_descendants(&pids).map_err(TraceError::Children)?;
            }
            // What exits between the two looks is no target any more.
            roots = Some(pids.into_iter().filter_map(|pid| procfs::identify(pid).ok()).collect());
        }
        Ok(Self { roots, children, names, own: std::process::id(), met: HashMap::new() })
    }

    /// The processes asked for by number.
    pub(super) fn roots(&self) -> &[ProcessKey] {
        self.roots.as_deref().unwrap_or_default()
    }

    /// The numbers of the processes to trace; `None`: all.
    pub(super) fn pids(&self) -> Option<Vec<u32>> {
        self.roots.as_ref().map(|roots| roots.iter().map(|process| process.pid).collect())
    }

    /// Whether one of the processes still lives, or all are traced. `pids` are those the kernel
    /// programs trace now, children included.
    pub(super) fn anyone_left(&self, pids: impl FnOnce() -> Vec<u32>) -> bool {
        let Some(roots) = &self.roots else { return true };
        let runs = |pid| procfs::identify(pid).is_ok_and(procfs::is_running);
        roots.iter().any(|&root| procfs::is_running(root))
            || (self.children && pids().into_iter().any(runs))
    }

    /// What an inventory lists.
    pub(super) fn scope(&self, pids: impl FnOnce() -> Vec<u32>) -> Scope {
        Scope { pids: self.roots.as_ref().map(|_| pids().into_iter().collect()) }
    }

    /// Whether connections of `process` are wanted. Its name is looked up when it is first met;
    /// `comm` stands in when it is gone by then.
    pub(super) fn wants(&mut self, process: ProcessKey, comm: &str) -> bool {
        if process.pid == self.own {
            return false;
        }
        if self.names.is_empty() {
            return true;
        }
        *self.met.entry(process).or_insert_with(|| {
            let info = procfs::describe(process);
            let name = info.as_ref().map_or(comm, |info| &info.comm);
            self.names.iter().any(|pattern| pattern.matches(name))
        })
    }

    /// Forgets processes that no longer run.
    pub(super) fn prune(&mut self) {
        self.met.retain(|&process, _| procfs::is_running(process));
    }

    /// With children: the descendants that were forked since the last look. To be asked once the
    /// kernel programs follow forks, for those forked before.
    pub(super) fn late_children(&mut self) -> Vec<u32> {
        let Some(roots) = self.roots.as_mut().filter(|_| self.children) else { return Vec::new() };
        let known: HashSet<u32> = roots.iter().map(|process| process.pid).collect();
        let found = procfs::with_descendants(&known).unwrap_or_else(|error| {
            log::warn!("children cannot be listed: {error}");
            HashSet::new()
        });
        let late: Vec<ProcessKey> =
            found.difference(&known).filter_map(|&pid| procfs::identify(pid).ok()).collect();
        roots.extend(&late);
        late.into_iter().map(|process| process.pid).collect()
    }

    /// What is traced, in words.
    pub(super) fn describe(&self) -> String {
        let processes = match &self.roots {
            None => "every process".to_owned(),
            Some(roots) => {
                let pids: Vec<_> = roots.iter().map(|process| process.pid.to_string()).collect();
                let word = if pids.len() == 1 { "process" } else { "processes" };
                format!("{word} {}", pids.join(", "))
            }
        };
        if self.names.is_empty() { processes } else { format!("{processes}, filtered by name") }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, id};

    use super::*;

    #[test]
    fn late_children_are_found_once_and_the_gone_are_forgotten() {
        let root = procfs::identify(id()).unwrap();
        let (names, met) = (vec!["*".parse().unwrap()], HashMap::new());
        let mut targets = Targets { roots: Some(vec![root]), children: true, names, own: 0, met };
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let key = procfs::identify(child.id()).unwrap();
        assert!(targets.wants(root, "") && targets.wants(key, ""));
        assert!(targets.late_children().contains(&child.id()));
        assert!(!targets.late_children().contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        targets.prune();
        assert!(targets.met.contains_key(&root) && !targets.met.contains_key(&key));
    }
}
