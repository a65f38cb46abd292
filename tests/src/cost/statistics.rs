//! The kernel's statistics of BPF programs: number of runs, and CPU time.

use std::os::fd::OwnedFd;

use anyhow::Result;

use crate::bpf::{Runs, count_runs, runs_of};

/// Enables the kernel's statistics while this value lives. They are off by default because they
/// cost time.
#[derive(Debug)]
pub struct Statistics {
    _counting: OwnedFd,
}

/// The statistics of some processes' programs at one moment.
#[derive(Clone, Debug)]
pub struct Counters(Vec<Runs>);

/// The cost of one program between two moments.
#[derive(Clone, Debug)]
pub struct Cost {
    /// The program's name, as the kernel knows it (at most 15 characters).
    pub name: String,
    /// Number of runs.
    pub runs: u64,
    /// Mean time per run.
    pub nanoseconds: f64,
}

impl Statistics {
    /// Enables the statistics.
    pub fn on() -> Result<Self> {
        Ok(Self { _counting: count_runs()? })
    }

    /// Reads the statistics of all programs that these processes hold.
    pub fn of(&self, pids: &[u32]) -> Result<Counters> {
        let runs: Result<Vec<_>> = pids.iter().map(|pid| runs_of(*pid)).collect();
        Ok(Counters(runs?.concat()))
    }
}

impl Counters {
    /// The costs since an earlier moment of all programs that ran, most expensive first.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Vec<Cost> {
        let mut costs: Vec<Cost> = self
            .0
            .iter()
            .filter_map(|now| {
                let then = earlier.0.iter().find(|then| then.id == now.id);
                let runs = now.count - then.map_or(0, |then| then.count);
                let total = now.nanoseconds - then.map_or(0, |then| then.nanoseconds);
                (runs > 0).then(|| Cost {
                    name: now.name.clone(),
                    runs,
                    nanoseconds: total as f64 / runs as f64,
                })
            })
            .collect();
        costs.sort_by(|a, b| b.nanoseconds.total_cmp(&a.nanoseconds));
        costs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_those_since_the_earlier_moment() {
        let counters = |count: u64, nanoseconds: u64| {
            let mine = Runs { id: 1, name: "mine".into(), count, nanoseconds };
            let still = Runs { id: 3, name: "never ran".into(), count: 0, nanoseconds: 0 };
            Counters(vec![mine, still])
        };
        let costs = counters(30, 5000).since(&counters(10, 1000));
        assert_eq!(costs.len(), 1);
        assert_eq!((costs[0].name.as_str(), costs[0].runs), ("mine", 20));
        assert!((costs[0].nanoseconds - 200.0).abs() < f64::EPSILON);
    }
}
