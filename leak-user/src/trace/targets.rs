//! The processes to trace, selected by PID and by name.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::model::ProcessKey;
use crate::nearest::nearest;
use crate::sources::inventory::Scope;
use crate::sources::procfs;
use crate::sources::procfs::selection::Selection;
use crate::trace::{TraceError, TraceSettings};

/// The selected processes.
pub(super) struct Targets {
    /// The processes selected by PID, with their children; `None` selects all.
    roots: Option<Vec<ProcessKey>>,
    children: bool,
    selection: Selection,
    /// The tracer's own PID: its sessions with PostgreSQL servers are not traced.
    own: u32,
    /// Whether each process seen so far is wanted.
    met: HashMap<ProcessKey, bool>,
}

impl Targets {
    /// Resolves the PIDs and, with children, those of all descendants.
    ///
    /// # Errors
    ///
    /// If none of the processes exists.
    pub(super) fn find(settings: &TraceSettings) -> Result<Self, TraceError> {
        let (children, selection) = (settings.kernel.children, settings.selection.clone());
        let mut roots = None;
        if let Some(wanted) = &settings.kernel.pids {
            let mut pids: HashSet<u32> = wanted.iter().copied().collect();
            let missing = |&pid: &u32| Some((pid, procfs::identify(pid).err()?));
            let mut gone: Vec<_> = wanted.iter().filter_map(missing).collect();
            if !gone.is_empty() && gone.len() == wanted.len() {
                let (pid, source) = gone.swap_remove(0);
                return Err(TraceError::NoProcess { pid, source });
            }
            for (pid, error) in gone {
                // Prefork servers end their workers all the time.
                log::warn!("process {pid} cannot be traced: {error}; the others are");
                pids.remove(&pid);
            }
            if children {
                pids = procfs::with_descendants(&pids).map_err(TraceError::Children)?;
            }
            // Processes that have exited in the meantime are dropped.
            roots = Some(pids.into_iter().filter_map(|pid| procfs::identify(pid).ok()).collect());
        }
        Ok(Self { roots, children, selection, own: std::process::id(), met: HashMap::new() })
    }

    /// The processes that are selected by PID.
    pub(super) fn roots(&self) -> &[ProcessKey] {
        self.roots.as_deref().unwrap_or_default()
    }

    /// The PIDs to trace; `None` selects all.
    pub(super) fn pids(&self) -> Option<Vec<u32>> {
        self.roots.as_ref().map(|roots| roots.iter().map(|process| process.pid).collect())
    }

    /// Whether a traced process still lives, or all processes are traced. `pids` returns the PIDs
    /// that the kernel programs trace, including children.
    pub(super) fn anyone_left(&self, pids: impl FnOnce() -> Vec<u32>) -> bool {
        let Some(roots) = &self.roots else { return true };
        let runs = |pid| procfs::identify(pid).is_ok_and(procfs::is_running);
        roots.iter().any(|&root| procfs::is_running(root))
            || (self.children && pids().into_iter().any(runs))
    }

    /// The processes whose connections an inventory lists.
    pub(super) fn scope(&self, pids: impl FnOnce() -> Vec<u32>) -> Scope {
        Scope { pids: self.roots.as_ref().map(|_| pids().into_iter().collect()) }
    }

    /// Whether to trace connections of `process`. Reads the process's name from procfs on the first
    /// call; uses `comm` if the process has exited by then.
    pub(super) fn wants(&mut self, process: ProcessKey, comm: &str) -> bool {
        if process.pid == self.own {
            return false;
        }
        let selection = &self.selection;
        if selection.is_everything() {
            return true;
        }
        *self.met.entry(process).or_insert_with(|| match procfs::describe(process) {
            Ok(info) => selection.wants(&info),
            Err(_) => selection.wants_gone(comm),
        })
    }

    /// Forgets processes that no longer run.
    pub(super) fn prune(&mut self) {
        self.met.retain(|&process, _| procfs::is_running(process));
    }

    /// The descendants that were forked since the last call, if children are traced. Call it after
    /// the kernel programs have begun to follow forks, to find children forked before that.
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

    /// Says which of the names that were asked for no process has now, with what may have been
    /// meant: a misspelt name would otherwise be waited for without a word.
    pub(super) fn warn_of_absent_names(&self) {
        let names = &self.selection.comm;
        if names.is_empty() {
            return;
        }
        let comm = |pid| std::fs::read_to_string(format!("/proc/{pid}/comm"));
        let pids = procfs::all().unwrap_or_default();
        let there: BTreeSet<String> = pids
            .into_iter()
            .filter_map(|pid| Some(comm(pid).ok()?.trim_end().to_owned()))
            .collect();
        for name in names {
            if let Some(kept) = name.cut() {
                log::info!("names of processes have at most 15 bytes: looking for {kept:?}");
            }
            if there.iter().any(|comm| name.matches(comm)) {
                continue;
            }
            let near = nearest(name.given(), there.iter().map(String::as_str));
            let near = if near.is_empty() { String::new() } else { format!("; there is {near:?}") };
            log::warn!("no process is called {:?} now; waiting for one{near}", name.given());
        }
    }

    /// Describes the selection in words.
    pub(super) fn describe(&self) -> String {
        let processes = match &self.roots {
            None => "every process".to_owned(),
            Some(roots) => {
                let pids: Vec<_> = roots.iter().map(|process| process.pid.to_string()).collect();
                let word = if pids.len() == 1 { "process" } else { "processes" };
                format!("{word} {}", pids.join(", "))
            }
        };
        if self.selection.is_everything() { processes } else { format!("{processes}, filtered") }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, id};

    use super::*;

    #[test]
    fn late_children_are_found_once_and_the_gone_are_forgotten() {
        let root = procfs::identify(id()).unwrap();
        let selection = Selection { comm: vec!["*".parse().unwrap()], ..Selection::default() };
        let (roots, met) = (Some(vec![root]), HashMap::new());
        let mut targets = Targets { roots, children: true, selection, own: 0, met };
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
