//! How judging grows with the number of connections, and whether a month fits into memory.
//!
//! Run it with `cargo xtask bench scale`. With `--json` it prints one JSON object for each size,
//! and nothing else.

#[path = "../tests/fleet/mod.rs"]
mod fleet;

use std::time::Duration;

use fleet::{POOL, at_once, cpu_time, month, unseen};

/// Processes of the month; each has a hundred connections.
const PROCESSES: u64 = 10_000;

fn main() {
    if std::env::args().any(|argument| argument == "--json") {
        return as_json();
    }
    println!(
        "{:>11} {:>9} {:>9} {:>12} {:>10} {:>13} {:>8}",
        "connections", "processes", "opening", "refreshing", "judging", "publishing", "memory"
    );
    for connections in SIZES {
        let (cost, fleet) = at_once(connections);
        let each = |time: Duration| time / u32::try_from(connections).unwrap_or(u32::MAX);
        println!(
            "{connections:>11} {:>9} {:>6} ns {:>9} ns {:>7} ns {:>10} ns {:>4} MiB   ({} ms a judgement, {} findings)",
            connections.div_ceil(POOL),
            each(cost.events).as_nanos(),
            each(cost.refresh).as_nanos(),
            each(cost.judge).as_nanos(),
            each(cost.publish).as_nanos(),
            resident_mib(),
            cost.judge.as_millis(),
            fleet.engine().accused().len(),
        );
    }
    println!("\nday  open  processes  pools  memory  so far");
    let begun = cpu_time();
    month(PROCESSES, unseen(), |day, fleet| {
        if day % 3 == 0 {
            let table = fleet.engine().table();
            println!(
                "{day:>3} {:>5} {:>10} {:>6} {:>4} MiB {:>6.1} s",
                table.connections().count(),
                table.processes().count(),
                table.pools().count(),
                resident_mib(),
                (cpu_time() - begun).as_secs_f64(),
            );
        }
    });
}

/// Connections of each size that is measured.
const SIZES: [u64; 4] = [1_000, 10_000, 100_000, 1_000_000];

/// CPU time of one interval with so many connections, in nanoseconds, and memory.
fn as_json() {
    for connections in SIZES {
        let (cost, _fleet) = at_once(connections);
        let line = serde_json::json!({
            "connections": connections,
            "refreshing_ns": cost.refresh.as_nanos() as u64,
            "judging_ns": cost.judge.as_nanos() as u64,
            "resident_mib": resident_mib(),
        });
        println!("{line}");
    }
}

/// Resident memory of this process, the fleet included.
fn resident_mib() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    (pages.unwrap_or(0) * rustix::param::page_size() as u64) >> 20
}
