//! CPU time of kernel programs per event, as the kernel measures it.

mod empty;
mod figures;
mod load;
mod peers;
mod statistics;
mod total;

use std::time::Duration;

use anyhow::{Context as _, Result};

pub use self::figures::{Figures, Measured, OURS};
pub use self::load::{Listener, Storm};
pub use self::peers::Peer;
pub use self::statistics::{Cost, Counters, Statistics};
pub use self::total::{TOTAL, Timed, Total, measure_total};

use self::empty::Empty;

/// The events, in the order of [`Costs`].
pub const EVENTS: [&str; 6] = [
    "send on a connection to another port",
    "receive on a connection to another port",
    "send counted, within a request",
    "receive counted, within an answer",
    "request with its stack (8 KB) recorded",
    "connection from connect to close, with its stack",
];

/// Nanoseconds per event of [`EVENTS`], above those of an empty program; `None` if no program ran.
pub type Costs = [Option<f64>; EVENTS.len()];

/// The amount of load for a measurement.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Number of requests, of sends and of receives.
    pub events: u64,
    /// How long the benchmark opens and closes connections.
    pub storm: Duration,
}

/// Measures the cost of a watcher's programs. `watch` starts the watcher for connections to a port;
/// `pid` returns its process.
pub fn measure<W>(
    load: Load,
    statistics: &Statistics,
    watch: impl FnOnce(u16) -> Result<W>,
    pid: impl FnOnce(&W) -> u32,
) -> Result<Costs> {
    let (server, elsewhere) = (Listener::open()?, Listener::open()?);
    let watcher = watch(server.port())?;
    let _empty = [
        Empty::attach(c"sock_send_length")?,
        Empty::attach(c"sock_recv_length")?,
        Empty::attach(c"inet_sock_set_state")?,
    ];
    let pids = [pid(&watcher), std::process::id()];
    let during = |load: &dyn Fn() -> Result<u64>| -> Result<(u64, Added)> {
        let before = statistics.of(&pids)?;
        let count = load()?;
        Ok((count, Added::new(statistics.of(&pids)?.since(&before))?))
    };
    let (_, other) = during(&|| elsewhere.converse(load.events))?;
    // In `sending`, only the client sends piecewise; in `receiving`, only the client receives
    // piecewise.
    let (_, sending) = during(&|| server.send_many(load.events))?;
    let (_, receiving) = during(&|| server.receive_many(load.events))?;
    let (requests, talking) = during(&|| server.converse(load.events))?;
    // Subtract the listener's answers: they are sends too, on connections that are not watched.
    let request = talking.total(is_send).zip(other.mean(is_send)).map(|(total, other)| {
        let answers = talking.runs(is_send).saturating_sub(requests);
        (total - answers as f64 * other) / requests as f64
    });
    let (connections, storm) = during(&|| Ok(server.storm(1, load.storm)?.connections))?;
    Ok([
        other.mean(is_send),
        other.mean(is_receive),
        sending.mean(is_send),
        receiving.mean(is_receive),
        request,
        storm.total(|_| true).map(|total| total / connections as f64),
    ])
}

/// The time of a watcher's programs, minus an empty program's.
struct Added {
    costs: Vec<Cost>,
    floor: f64,
}

impl Added {
    fn new(costs: Vec<Cost>) -> Result<Self> {
        let (empty, costs): (Vec<_>, Vec<_>) =
            costs.into_iter().partition(|cost| cost.name == empty::NAME);
        let floor = empty.iter().map(|cost| cost.nanoseconds).reduce(f64::min);
        Ok(Self { costs, floor: floor.context("The empty program did not run.")? })
    }

    fn of(&self, which: impl Fn(&str) -> bool) -> impl Iterator<Item = &Cost> {
        self.costs.iter().filter(move |cost| which(&cost.name))
    }

    fn runs(&self, which: impl Fn(&str) -> bool) -> u64 {
        self.of(which).map(|cost| cost.runs).sum()
    }

    /// Nanoseconds of all runs together; `None` if there were no runs.
    fn total(&self, which: impl Fn(&str) -> bool + Copy) -> Option<f64> {
        let each = self.of(which).map(|cost| (cost.nanoseconds - self.floor) * cost.runs as f64);
        (self.runs(which) > 0).then(|| each.sum())
    }

    /// Mean nanoseconds per run.
    fn mean(&self, which: impl Fn(&str) -> bool + Copy) -> Option<f64> {
        Some(self.total(which)? / self.runs(which) as f64)
    }
}

fn is_send(name: &str) -> bool {
    name.contains("send")
}

/// Programs on `tcp_cleanup_rbuf` count as receiving; the kernel may have truncated their names.
fn is_receive(name: &str) -> bool {
    name.contains("rec") || name.contains("cleanup_rbu")
}
