//! Nanoseconds an event, by the kernel's own count, less those of a program that does nothing.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::super::{
    load::Server,
    programs::{Cost, Statistics},
};
use super::{
    Bench,
    empty::{self, Empty},
    figure::{Row, Section, Spread},
    peers::Peer,
};
use crate::process::Guarded;

/// How often everything is measured.
const ROUNDS: usize = 7;

/// Requests, or sends, of one measurement.
const EVENTS: u64 = 30_000;

/// How long connections are opened and closed in one measurement.
const STORM: Duration = Duration::from_secs(1);

/// What is measured, in the order of the rows.
const WHAT: [(&str, Option<f64>); 6] = [
    ("send on a connection to another port", Some(15.0)),
    ("receive on a connection to another port", Some(15.0)),
    ("send counted, within a request", Some(100.0)),
    ("receive counted, within an answer", Some(100.0)),
    ("request with its stack (8 KB) recorded", Some(1200.0)),
    ("connection from connect to close, with its stack", Some(8000.0)),
];

/// Nanoseconds of each thing measured; `None`: it watches no such thing.
type Costs = [Option<f64>; WHAT.len()];

/// Measures the tracer and its peers in turns.
pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let statistics = Statistics::on()?;
    let mut ours: Vec<Costs> = Vec::new();
    let mut peers: Vec<(Peer, Vec<Costs>)> = Peer::ALL.map(|peer| (peer, Vec::new())).into();
    for _ in 0..ROUNDS {
        // Recording every stack, however many there are, is what costs most.
        let trace = |port| bench.trace(port, &["--stack-budget", "1s"]).map(|traced| traced.tracer);
        ours.push(of(&statistics, trace)?);
        for (peer, costs) in &mut peers {
            costs.push(of(&statistics, |port| peer.start(port))?);
        }
    }
    let spread = |costs: &[Costs], index: usize| {
        Spread::of(costs.iter().filter_map(|costs| costs[index]).collect())
    };
    let rows = WHAT.iter().enumerate().map(|(index, (what, target))| {
        let mut row = Row::new(*what, "ns", spread(&ours, index));
        row.target = *target;
        let of_peer =
            |(peer, costs): &(Peer, Vec<Costs>)| Some((peer.name(), spread(costs, index)?));
        row.peers = peers.iter().filter_map(of_peer).collect();
        row
    });
    Ok(Section {
        title: "Per event",
        how: format!(
            "Time in BPF programs as the kernel counts it (`kernel.bpf_stats_enabled`), less that of an \
             empty program attached to the same tracepoint at the same time. Median of {ROUNDS} rounds; \
             in each, every tool watches the same {EVENTS} events of a client that talks to a listener \
             over loopback. bpftrace keeps bytes and the latest frame-pointer stack of each socket, at \
             the same tracepoints with the same filter; tcpstates and tcplife watch states only. A classic \
             tracepoint, which they use, costs more besides that the kernel does not count here."
        ),
        rows: rows.collect(),
    })
}

/// One round of one watcher.
fn of(statistics: &Statistics, watch: impl Fn(u16) -> Result<Guarded>) -> Result<Costs> {
    let (server, elsewhere) = (Server::open()?, Server::open()?);
    let watcher = watch(server.port())?;
    let _empty = [
        Empty::attach(c"sock_send_length")?,
        Empty::attach(c"sock_recv_length")?,
        Empty::attach(c"inet_sock_set_state")?,
    ];
    let pids = [watcher.pid(), std::process::id()];
    let during = |load: &dyn Fn() -> Result<u64>| -> Result<(u64, Added)> {
        let before = statistics.of(&pids)?;
        let count = load()?;
        Ok((count, Added::new(statistics.of(&pids)?.since(&before))?))
    };
    let (_, other) = during(&|| elsewhere.converse(EVENTS))?;
    // Only the client sends in the one, and only it receives little by little in the other.
    let (_, sending) = during(&|| server.send_many(EVENTS))?;
    let (_, receiving) = during(&|| server.receive_many(EVENTS))?;
    let (requests, talking) = during(&|| server.converse(EVENTS))?;
    // The listener's answers are sends too, on connections that are not watched.
    let request = talking.total(is_send).zip(other.mean(is_send)).map(|(total, other)| {
        let answers = talking.runs(is_send).saturating_sub(requests);
        (total - answers as f64 * other) / requests as f64
    });
    let (connections, storm) = during(&|| Ok(server.storm(1, STORM)?.connections))?;
    Ok([
        other.mean(is_send),
        other.mean(is_receive),
        sending.mean(is_send),
        receiving.mean(is_receive),
        request,
        storm.total(|_| true).map(|total| total / connections as f64),
    ])
}

/// What a watcher's programs took above an empty one.
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

    /// Nanoseconds of all runs together; `None` when there were none.
    fn total(&self, which: impl Fn(&str) -> bool + Copy) -> Option<f64> {
        let each = self.of(which).map(|cost| (cost.nanoseconds - self.floor) * cost.runs as f64);
        (self.runs(which) > 0).then(|| each.sum())
    }

    /// Nanoseconds of one run.
    fn mean(&self, which: impl Fn(&str) -> bool + Copy) -> Option<f64> {
        Some(self.total(which)? / self.runs(which) as f64)
    }
}

fn is_send(name: &str) -> bool {
    name.contains("send")
}

fn is_receive(name: &str) -> bool {
    name.contains("rec")
}
