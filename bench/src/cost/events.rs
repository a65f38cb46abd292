//! Nanoseconds per event by the kernel's own count, less those of an empty program.

use std::time::Duration;

use anyhow::Result;
use harness::cost::{self, Costs, EVENTS, Load, Peer, Statistics};

use super::{
    Bench,
    figure::{Row, Section, Spread},
    peers,
};
use support::process::Guarded;

/// How often everything is measured.
const ROUNDS: usize = 7;

/// Requests, or sends, of one measurement.
const COUNT: u64 = 30_000;

/// How long connections are opened and closed in one measurement.
const STORM: Duration = Duration::from_secs(1);

/// The most that each of [`EVENTS`] may cost, in nanoseconds.
const TARGETS: [f64; EVENTS.len()] = [15.0, 15.0, 100.0, 100.0, 1200.0, 8000.0];

/// Measures the tracer and its peers in turns.
pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let statistics = Statistics::on()?;
    let load = Load { events: COUNT, storm: STORM };
    let mut ours: Vec<Costs> = Vec::new();
    let mut others: Vec<(Peer, Vec<Costs>)> =
        Peer::ON_TRACEPOINTS.map(|peer| (peer, Vec::new())).into();
    for _ in 0..ROUNDS {
        // Recording every stack, however many there are, is what costs most.
        let trace = |port| bench.trace(port, &["--stack-budget", "1s"]).map(|traced| traced.tracer);
        ours.push(cost::measure(load, &statistics, trace, Guarded::pid)?);
        for (peer, costs) in &mut others {
            let watch = |port| peers::start(*peer, port);
            costs.push(cost::measure(load, &statistics, watch, Guarded::pid)?);
        }
    }
    let spread = |costs: &[Costs], index: usize| {
        Spread::of(costs.iter().filter_map(|costs| costs[index]).collect())
    };
    let rows = EVENTS.iter().zip(TARGETS).enumerate().map(|(index, (what, target))| {
        let mut row = Row::new(*what, "ns", spread(&ours, index)).at_most(target);
        let of_peer =
            |(peer, costs): &(Peer, Vec<Costs>)| Some((peer.name(), spread(costs, index)?));
        row.peers = others.iter().filter_map(of_peer).collect();
        row
    });
    Ok(Section {
        title: "Per event",
        how: format!(
            "Time in BPF programs as the kernel counts it (`kernel.bpf_stats_enabled`), less that of an \
             empty program attached to the same tracepoint at the same time. Median of {ROUNDS} rounds; \
             in each, every tool watches the same {COUNT} events of a client that talks to a listener \
             over loopback. bpftrace keeps bytes and the latest frame-pointer stack of each socket, at \
             the same tracepoints with the same filter; tcpstates and tcplife watch states only. A classic \
             tracepoint, which they use, costs more besides that the kernel does not count here."
        ),
        rows: rows.collect(),
    })
}
