//! Total cost of an event: the kernel programs, the hooks that call them, and the watcher's own
//! process. Wall-clock time, on one processor that is never idle.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::Load;
use super::load::Listener;

/// The events that are timed, in the order of [`Timed`].
pub const TOTAL: [&str; 3] = [
    "request and answer on a connection to another port",
    "request, its stack recorded, and answer",
    "connection from connect to close, with its stack",
];

/// Nanoseconds of each of [`TOTAL`], one entry per round.
pub type Timed = [Vec<f64>; TOTAL.len()];

/// The time that a watcher adds to each of [`TOTAL`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Total {
    /// In the watched programs and the kernel.
    pub watched: Timed,
    /// In the watcher's own process.
    pub watcher: Timed,
}

/// Pause before a watcher is measured: it reads the symbols of the watched program once, not per
/// event.
const FIRST_REST: Duration = Duration::from_secs(15);

/// Pause between two loads, so that the watcher finishes its work on the first.
const REST: Duration = Duration::from_secs(2);

/// Measures this many rounds without a watcher and as many with one. `watch` starts the watcher for
/// connections to a port; `pid` returns its process.
pub fn measure_total<W>(
    rounds: usize,
    load: Load,
    watch: impl FnOnce(u16) -> Result<W>,
    pid: impl FnOnce(&W) -> u32,
) -> Result<Total> {
    let (server, elsewhere) = (Listener::open()?, Listener::open()?);
    let round = |pid: Option<u32>| -> Result<[Took; TOTAL.len()]> {
        let converse = |listener: &Listener| Ok((listener.time(load.events)?, load.events));
        let storm = || {
            let start = Instant::now();
            let connections = server.storm(1, load.storm)?.connections;
            Ok((start.elapsed(), connections))
        };
        Ok([
            Took::during(pid, || converse(&elsewhere))?,
            Took::during(pid, || converse(&server))?,
            Took::during(pid, storm)?,
        ])
    };
    let all = |pid| (0..rounds).map(|_| round(pid)).collect::<Result<Vec<_>>>();
    // Warm-up: first runs take longer.
    round(None)?;
    let without = all(None)?;
    let watcher = watch(server.port())?;
    let pid = Some(pid(&watcher));
    round(pid)?;
    thread::sleep(FIRST_REST);
    let with = all(pid)?;
    let added = |of: fn(&Took) -> f64| -> Timed {
        std::array::from_fn(|index| {
            let pairs = with.iter().zip(&without);
            pairs.map(|(with, without)| of(&with[index]) - of(&without[index])).collect()
        })
    };
    Ok(Total { watched: added(|took| took.watched), watcher: added(|took| took.watcher) })
}

/// Nanoseconds per event.
struct Took {
    /// Wall-clock time, without the watcher's process.
    watched: f64,
    /// CPU time of the watcher's process, if there is one.
    watcher: f64,
}

impl Took {
    /// Measures `load`, which returns its duration and its number of events. The watcher's
    /// remaining work afterwards counts, too.
    fn during(pid: Option<u32>, load: impl FnOnce() -> Result<(Duration, u64)>) -> Result<Self> {
        let own = || pid.map_or(Ok(0), processor_time);
        let before = own()?;
        let (took, events) = load()?;
        let meanwhile = (own()? - before) as f64;
        thread::sleep(REST);
        let watcher = (own()? - before) as f64;
        let each = |nanoseconds: f64| nanoseconds / events as f64;
        Ok(Self { watched: each(took.as_nanos() as f64 - meanwhile), watcher: each(watcher) })
    }
}

/// CPU time of a process's threads in nanoseconds.
fn processor_time(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        sum += running(&text).context("the kernel does not tell how long a thread ran")?;
    }
    Ok(sum)
}

/// The first field of `schedstat`, nanoseconds on a processor:
/// Documentation/scheduler/sched-stats.rst.
fn running(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_how_long_a_thread_ran() {
        assert_eq!(running("1218351 20100 12\n"), Some(1_218_351));
        assert_eq!(running("0 0 0\n"), Some(0));
        for broken in ["", "\n", "x 1 2\n", "-1 0 0\n"] {
            assert_eq!(running(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_process_that_works_takes_time() {
        let own = std::process::id();
        let before = processor_time(own).unwrap();
        while processor_time(own).unwrap() == before {}
        assert!(processor_time(0).is_err(), "there is no such process");
    }

    #[test]
    fn what_takes_a_watcher_time_is_told_apart() {
        let took = Took::during(None, || Ok((Duration::from_micros(30), 3))).unwrap();
        assert!((took.watched - 10_000.0).abs() < f64::EPSILON && took.watcher == 0.0);
        let own = Some(std::process::id());
        let took = Took::during(own, || Ok((Duration::from_secs(3600), 1))).unwrap();
        assert!(took.watched <= 3600e9 && took.watcher >= 0.0);
    }
}
