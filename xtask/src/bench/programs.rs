//! What the kernel counts about BPF programs: runs, and the time that they took.

use std::{os::fd::OwnedFd, process::Command};

use ::tests::bpf::{count_runs, programs_of};
use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::process;

/// The kernel counts as long as this value lives; it does not otherwise, because counting costs time
/// itself.
pub(super) struct Statistics {
    _counting: OwnedFd,
}

/// The counters of some processes' programs at one moment.
pub(super) struct Counters(Vec<Counter>);

struct Counter {
    id: u32,
    name: String,
    runs: u64,
    nanoseconds: u64,
}

/// What one program cost between two moments.
pub(super) struct Cost {
    /// The program's name, as the kernel knows it (at most 15 characters).
    pub(super) name: String,
    /// How often it ran.
    pub(super) runs: u64,
    /// Mean time of a run.
    pub(super) nanoseconds: f64,
}

impl Statistics {
    /// Has the kernel count.
    pub(super) fn on() -> Result<Self> {
        Ok(Self { _counting: count_runs()? })
    }

    /// Reads the counters of all programs that these processes hold.
    pub(super) fn of(&self, pids: &[u32]) -> Result<Counters> {
        let shown = process::output(Command::new("bpftool").args(["prog", "show", "-j"]))?;
        // bpftool can tell whose programs they are only where it can load one of its own.
        let ids: Result<Vec<_>> = pids.iter().map(|pid| programs_of(*pid)).collect();
        read(&serde_json::from_str(&shown)?, &ids?.concat()).context("bpftool shows no programs.")
    }
}

impl Counters {
    /// The costs since an earlier moment, of the programs that ran, dearest first.
    pub(super) fn since(&self, earlier: &Self) -> Vec<Cost> {
        let mut costs: Vec<Cost> = self
            .0
            .iter()
            .filter_map(|now| {
                let then = earlier.0.iter().find(|then| then.id == now.id);
                let runs = now.runs - then.map_or(0, |then| then.runs);
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

/// Reads what `bpftool prog show -j` printed, of the programs with these `ids`.
fn read(shown: &Value, ids: &[u32]) -> Option<Counters> {
    let counters = shown
        .as_array()?
        .iter()
        .filter_map(|program| Some((u32::try_from(program["id"].as_u64()?).ok()?, program)))
        .filter(|(id, _)| ids.contains(id))
        .filter_map(|(id, program)| {
            Some(Counter {
                id,
                name: program["name"].as_str()?.to_owned(),
                // Absent until the program has run.
                runs: program["run_cnt"].as_u64().unwrap_or(0),
                nanoseconds: program["run_time_ns"].as_u64().unwrap_or(0),
            })
        })
        .collect();
    Some(Counters(counters))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn costs_are_those_of_the_process_since_the_earlier_moment() {
        let program = |runs: u64, nanoseconds: u64| {
            json!([
                {"id": 1, "name": "mine", "run_cnt": runs, "run_time_ns": nanoseconds},
                {"id": 2, "name": "other", "run_cnt": 9, "run_time_ns": 9},
                {"id": 3, "name": "never ran"},
                {"id": 4, "name": "held by nobody"},
            ])
        };
        let ids = [1, 3];
        let earlier = read(&program(10, 1000), &ids).unwrap();
        let later = read(&program(30, 5000), &ids).unwrap();
        let costs = later.since(&earlier);
        assert_eq!(costs.len(), 1);
        assert_eq!((costs[0].name.as_str(), costs[0].runs), ("mine", 20));
        assert!((costs[0].nanoseconds - 200.0).abs() < f64::EPSILON);
        assert!(read(&json!({}), &ids).is_none());
    }
}
