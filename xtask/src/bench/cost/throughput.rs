//! What clients notice: pgbench traced and untraced, in turns.

use std::{fs, path::Path};

use ::tests::cost::Peer;
use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::{
    Bench,
    figure::{Row, Section, Spread},
    peers,
};
use crate::process::{self, Guarded};

/// Pairs of runs, watched and not.
const PAIRS: usize = 20;

/// How long one run lasts, in the seconds that pgbench wants.
const SECONDS: u32 = 2;

/// One transaction in so many is logged with its latency.
const SAMPLING: &str = "0.2";

/// What pgbench is told to do.
#[derive(Clone, Copy, Debug)]
struct Load {
    script: &'static str,
    protocol: &'static str,
    clients: u32,
}

impl Load {
    /// Every combination that is measured.
    fn all() -> impl Iterator<Item = Self> {
        ["-S", "-N"].into_iter().flat_map(|script| {
            ["simple", "prepared"].into_iter().flat_map(move |protocol| {
                [1, 8, 64].into_iter().map(move |clients| Self { script, protocol, clients })
            })
        })
    }

    fn name(self) -> String {
        let clients = if self.clients == 1 { "client" } else { "clients" };
        format!("`pgbench {}`, {}, {} {clients}", self.script, self.protocol, self.clients)
    }
}

/// What came of one run.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Transactions a second.
    rate: f64,
    /// 99th percentile of the latency, in microseconds.
    p99: f64,
}

/// What was lost, in per cent, in each pair.
#[derive(Default)]
struct Losses {
    rate: Vec<f64>,
    p99: Vec<f64>,
}

impl Losses {
    fn add(&mut self, without: Run, with: Run) {
        self.rate.push((1.0 - with.rate / without.rate) * 100.0);
        self.p99.push((with.p99 / without.p99 - 1.0) * 100.0);
    }
}

/// Measures every load with the tracer, and one with its peers.
pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let port = bench.postgres.port();
    let mut rows = Vec::new();
    for load in Load::all() {
        let trace = || bench.trace(port, &[]).map(|traced| traced.tracer);
        let losses = pairs(bench, load, trace)?;
        let mut rate =
            Row::new(format!("{}: throughput lost", load.name()), "%", Spread::of(losses.rate))
                .at_most(1.0);
        let mut p99 =
            Row::new(format!("{}: p99 latency added", load.name()), "%", Spread::of(losses.p99))
                .at_most(2.0);
        if (load.script, load.protocol, load.clients) == ("-S", "simple", 8) {
            for peer in Peer::ON_TRACEPOINTS {
                let losses = pairs(bench, load, || peers::start(peer, port))?;
                rate.peers.extend(Spread::of(losses.rate).map(|spread| (peer.name(), spread)));
                p99.peers.extend(Spread::of(losses.p99).map(|spread| (peer.name(), spread)));
            }
        }
        rows.extend([rate, p99]);
    }
    Ok(Section {
        title: "End to end",
        how: format!(
            "pgbench at scale 10 against PostgreSQL on the same machine, both over loopback, so that client, \
             server and tracer share its {} processors: on a server that is not saturated less is noticed. \
             {PAIRS} pairs of runs of {SECONDS} s, each watched and not in turns; median of the pairs' \
             differences and its 95 % confidence interval. An interval that spans zero means that no difference \
             was shown.",
            std::thread::available_parallelism().map_or(1, usize::from)
        ),
        rows,
    })
}

/// Runs a load watched and not, in turns; which comes first alternates, so that drift hits both alike.
fn pairs(bench: &Bench, load: Load, watch: impl Fn() -> Result<Guarded>) -> Result<Losses> {
    let mut losses = Losses::default();
    let watched = || -> Result<Run> {
        let mut watcher = watch()?;
        let run = run(bench, load)?;
        watcher.ensure_running()?;
        Ok(run)
    };
    for pair in 0..PAIRS {
        let (without, with) = if pair % 2 == 0 {
            (run(bench, load)?, watched()?)
        } else {
            let with = watched()?;
            (run(bench, load)?, with)
        };
        losses.add(without, with);
    }
    Ok(losses)
}

fn run(bench: &Bench, load: Load) -> Result<Run> {
    let logs = TempDir::with_prefix("pgsocktrace-")?;
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(logs.path(), open)?;
    let prefix = logs.path().join("latencies");
    let threads = load.clients.min(2).to_string();
    let output = process::output(
        bench
            .postgres
            .client("pgbench")
            .args(["-n", load.script, "-M", load.protocol, "-c", &load.clients.to_string()])
            .args(["-j", &threads, "-T", &SECONDS.to_string()])
            .args(["--log", "--sampling-rate", SAMPLING])
            .arg(format!("--log-prefix={}", prefix.display())),
    )?;
    let rate = transactions_per_second(&output).context("pgbench did not say how fast it was.")?;
    Ok(Run { rate, p99: p99(logs.path())? })
}

/// The 99th percentile of the latencies that pgbench has logged, in microseconds.
fn p99(logs: &Path) -> Result<f64> {
    let mut latencies = Vec::new();
    for entry in fs::read_dir(logs)? {
        let log = fs::read_to_string(entry?.path())?;
        latencies.extend(log.lines().filter_map(latency));
    }
    ensure!(!latencies.is_empty(), "pgbench has logged no transaction.");
    let place = latencies.len() * 99 / 100;
    let (_, latency, _) = latencies.select_nth_unstable_by(place, f64::total_cmp);
    Ok(*latency)
}

/// The latency of a line of pgbench's log, in microseconds: `client transaction latency …`.
fn latency(line: &str) -> Option<f64> {
    line.split(' ').nth(2)?.parse().ok()
}

/// What pgbench says of its speed.
fn transactions_per_second(output: &str) -> Option<f64> {
    let line = output.lines().find_map(|line| line.strip_prefix("tps = "))?;
    line.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_speed_of_pgbench() {
        let output =
            "latency average = 0.1 ms\ntps = 12345.678 (without initial connection time)\n";
        assert_eq!(transactions_per_second(output), Some(12345.678));
        assert_eq!(transactions_per_second("tps = fast"), None);
        assert_eq!(transactions_per_second(""), None);
    }

    #[test]
    fn reads_latencies_of_every_thread() {
        let logs = TempDir::new().unwrap();
        let line = |latency: u32| format!("0 199 {latency} 0 1175850568 995598\n");
        fs::write(logs.path().join("latencies.1"), (1..=60).map(line).collect::<String>()).unwrap();
        fs::write(logs.path().join("latencies.1.1"), (61..=100).map(line).collect::<String>())
            .unwrap();
        assert_eq!(p99(logs.path()).unwrap(), 100.0);
        assert!(p99(TempDir::new().unwrap().path()).is_err());
        assert_eq!(latency("x"), None);
    }
}
