//! Counts per process, closed connections included.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use crate::engine::table::end::End;
use crate::model::{Caller, ProcessKey, Timestamp};

/// Most processes without connections remembered.
const MAX_IDLE_PROCESSES: usize = 4096;

/// Most servers counted separately for one process, and most pairs of name and server kept of
/// forgotten processes.
const MAX_DESTINATIONS: usize = 1024;

/// Most SQLSTATEs of refusals counted separately for one process.
const MAX_REFUSALS: usize = 32;

/// Counts of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Open now.
    pub open: u64,
    /// Most that were open at one time.
    pub peak_open: u64,
    /// Opened while traced; connections older than the trace are not among them.
    pub opened_total: u64,
    /// Closed while traced, failed ones among them.
    pub closed_total: u64,
    /// Could not be established.
    pub connect_failures: u64,
}

impl Tally {
    fn add_open(&mut self, opened: bool) {
        self.open += 1;
        self.peak_open = self.peak_open.max(self.open);
        self.opened_total += u64::from(opened);
    }

    fn remove_open(&mut self, end: End) {
        self.open = self.open.saturating_sub(1);
        self.closed_total += 1;
        self.connect_failures += u64::from(end == End::Failed);
    }

    /// Adds another process's counts. Peaks of different moments do not add up: the sum is only a
    /// bound.
    fn absorb(&mut self, other: &Self) {
        self.open += other.open;
        self.peak_open += other.peak_open;
        self.opened_total += other.opened_total;
        self.closed_total += other.closed_total;
        self.connect_failures += other.connect_failures;
    }
}

/// One process's counts.
#[derive(Clone, Debug, Default)]
pub struct ProcessTally {
    /// Name of its main thread where that was seen, else of the first thread that was.
    pub comm: Option<String>,
    /// Connections that the server refused, by SQLSTATE.
    pub refused: BTreeMap<String, u64>,
    /// All its connections.
    pub total: Tally,
    /// The same by server.
    pub by_remote: BTreeMap<SocketAddr, Tally>,
    changed_at: Timestamp,
}

impl ProcessTally {
    fn each(&mut self, remote: SocketAddr, mut change: impl FnMut(&mut Tally)) {
        change(&mut self.total);
        if self.by_remote.len() < MAX_DESTINATIONS || self.by_remote.contains_key(&remote) {
            change(self.by_remote.entry(remote).or_default());
        }
    }
}

/// The counts of all processes.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    processes: HashMap<ProcessKey, ProcessTally>,
    /// What forgotten processes had counted: totals by name must never fall.
    forgotten: BTreeMap<(String, SocketAddr), Tally>,
}

impl Tallies {
    pub(super) fn processes(&self) -> impl Iterator<Item = (ProcessKey, &ProcessTally)> {
        self.processes.iter().map(|(&key, tally)| (key, tally))
    }

    pub(super) fn process(&self, key: ProcessKey) -> Option<&ProcessTally> {
        self.processes.get(&key)
    }

    /// What forgotten processes had counted, by name and server.
    pub(super) fn forgotten(&self) -> &BTreeMap<(String, SocketAddr), Tally> {
        &self.forgotten
    }

    /// Learns a process's name.
    pub(super) fn name(&mut self, caller: &Caller) {
        if let Some(process) = self.processes.get_mut(&caller.process)
            && (process.comm.is_none() || caller.tid == caller.process.pid)
        {
            process.comm = Some(caller.comm.clone());
        }
    }

    /// Counts a connection that is there from now on; `opened` when it was opened while traced.
    pub(super) fn add(
        &mut self,
        process: ProcessKey,
        remote: SocketAddr,
        opened: bool,
        now: Timestamp,
    ) {
        if self.processes.len() >= MAX_IDLE_PROCESSES && !self.processes.contains_key(&process) {
            self.forget_oldest();
        }
        let process = self.processes.entry(process).or_default();
        process.changed_at = now;
        process.each(remote, |tally| tally.add_open(opened));
    }

    /// Counts as opened what was at first taken for older than the trace.
    pub(super) fn opened_after_all(&mut self, process: ProcessKey, remote: SocketAddr) {
        if let Some(process) = self.processes.get_mut(&process) {
            process.each(remote, |tally| tally.opened_total += 1);
        }
    }

    /// Counts a connection that the server refused.
    pub(super) fn refuse(&mut self, process: ProcessKey, sqlstate: &str) {
        let Some(process) = self.processes.get_mut(&process) else { return };
        if process.refused.len() < MAX_REFUSALS || process.refused.contains_key(sqlstate) {
            *process.refused.entry(sqlstate.to_owned()).or_default() += 1;
        }
    }

    /// Counts a connection as gone.
    pub(super) fn remove(
        &mut self,
        process: ProcessKey,
        remote: SocketAddr,
        end: End,
        now: Timestamp,
    ) {
        if let Some(process) = self.processes.get_mut(&process) {
            process.changed_at = now;
            process.each(remote, |tally| tally.remove_open(end));
        }
    }

    /// Makes room by a quarter of the processes without connections, the longest unchanged first.
    fn forget_oldest(&mut self) {
        let mut idle: Vec<_> = self
            .processes
            .iter()
            .filter(|(_, process)| process.total.open == 0)
            .map(|(&key, process)| (process.changed_at, key))
            .collect();
        idle.sort_unstable();
        for (_, key) in idle.iter().take(MAX_IDLE_PROCESSES / 4) {
            let Some(process) = self.processes.remove(key) else { continue };
            let comm = process.comm.unwrap_or_default();
            for (remote, tally) in process.by_remote {
                let key = (comm.clone(), remote);
                if self.forgotten.len() < MAX_DESTINATIONS || self.forgotten.contains_key(&key) {
                    self.forgotten.entry(key).or_default().absorb(&tally);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_old_processes_but_not_their_totals() {
        let remote: SocketAddr = "10.0.0.1:5432".parse().unwrap();
        let mut tallies = Tallies::default();
        for pid in 0..10_000 {
            let process = ProcessKey { pid, start_ticks: 1 };
            tallies.add(process, remote, true, Timestamp(u64::from(pid)));
            tallies.name(&Caller { process, tid: pid, comm: "psql".into() });
            tallies.remove(process, remote, End::Closed, Timestamp(u64::from(pid)));
        }
        assert!(tallies.processes.len() <= MAX_IDLE_PROCESSES);
        let mut sum = tallies.forgotten()[&("psql".to_owned(), remote)];
        tallies.processes.values().for_each(|process| sum.absorb(&process.total));
        assert_eq!((sum.open, sum.opened_total, sum.closed_total), (0, 10_000, 10_000));
    }
}
