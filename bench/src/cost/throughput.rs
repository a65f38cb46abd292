//! Throughput and latency that pgbench loses while the tracer is attached.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::Path,
    process::Stdio,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use harness::cost::Peer;
use tempfile::TempDir;

use super::{
    Bench, Traced, cpu_time,
    figure::{Row, Section, Spread},
    peers,
    storms::{number, report},
};
use support::process::{Guarded, Signal, pause};

/// How long each load lasts.
const RUN: Duration = Duration::from_secs(60);

/// What is left at its end: a turn begins only when it ends before.
const END: Duration = Duration::from_secs(6);

/// How long clients are looked at, watched or not.
const WINDOW: Duration = Duration::from_secs(1);

/// After it has attached the tracer is left alone for so long: what it does but once, as reading
/// the clients' symbols, is not to be counted, nor the second of thirty in which the kernel counts
/// what its programs cost.
const SETTLING: Duration = Duration::from_millis(1800);

/// How long clients are left alone when nobody watches them any more, or they have just begun.
const CALMING: Duration = Duration::from_millis(300);

/// How long pgbench may take to end.
const END_LIMIT: Duration = Duration::from_secs(60);

/// Fewer turns have no interval: one of six values spans all of them.
const FEWEST: usize = 6;

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

/// A stretch of time, in microseconds since 1970, and the latencies of what was done in it.
#[derive(Debug)]
struct Window {
    begin: u64,
    end: u64,
    /// In microseconds.
    latencies: Vec<f64>,
}

impl Window {
    /// Lets it pass.
    fn pass() -> Result<Self> {
        let begin = now()?;
        pause(WINDOW)?;
        Ok(Self { begin, end: now()?, latencies: Vec::new() })
    }

    /// Transactions a second.
    fn rate(&self) -> f64 {
        self.latencies.len() as f64 / (self.end - self.begin) as f64 * 1e6
    }

    /// 99th percentile of the latency, in microseconds.
    fn p99(&mut self) -> Result<f64> {
        ensure!(!self.latencies.is_empty(), "pgbench has done nothing for a while.");
        let place = self.latencies.len() * 99 / 100;
        let (_, latency, _) = self.latencies.select_nth_unstable_by(place, f64::total_cmp);
        Ok(*latency)
    }
}

/// What watches the clients.
enum Watcher {
    Tracer(Traced),
    Peer(Guarded),
}

impl Watcher {
    /// Lets a window pass in which it watches, ends it, and says how many cores it took, where it
    /// knows.
    fn watch(self) -> Result<(Window, Option<f64>)> {
        match self {
            Self::Peer(mut peer) => {
                let window = Window::pass()?;
                peer.ensure_running()?;
                Ok((window, None))
            }
            Self::Tracer(traced) => {
                pause(SETTLING)?;
                let before = cpu_time(traced.tracer.pid())?;
                let window = Window::pass()?;
                let collector = cpu_time(traced.tracer.pid())? - before;
                let kernel = number(&report(traced)?, "/cost/kernel_cores")?;
                Ok((window, Some(kernel + collector.as_secs_f64() / WINDOW.as_secs_f64())))
            }
        }
    }
}

/// What was lost, in per cent, in each turn.
#[derive(Default)]
struct Losses {
    rate: Vec<f64>,
    p99: Vec<f64>,
    /// Of a core, what the watcher took.
    cores: Vec<f64>,
}

/// Measures every load with the tracer, and one with its peers.
pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let port = bench.postgres.port();
    let mut rows = Vec::new();
    for load in Load::all() {
        let losses = turns(bench, load, || bench.trace(port, &[]).map(Watcher::Tracer))?;
        let row =
            |what: &str, of| Row::new(format!("{}: {what}", load.name()), "%", Spread::of(of));
        let mut rate = row("throughput lost", losses.rate).at_most(1.0);
        let mut p99 = row("p99 latency added", losses.p99).at_most(2.0);
        let cores = row("of a core, by its own count", losses.cores);
        if (load.script, load.protocol, load.clients) == ("-S", "simple", 8) {
            for peer in Peer::ON_TRACEPOINTS {
                let losses = turns(bench, load, || peers::start(peer, port).map(Watcher::Peer))?;
                rate.peers.extend(Spread::of(losses.rate).map(|spread| (peer.name(), spread)));
                p99.peers.extend(Spread::of(losses.p99).map(|spread| (peer.name(), spread)));
            }
        }
        rows.extend([rate, p99, cores]);
        println!("{}: done", load.name());
    }
    Ok(Section {
        title: "End to end",
        how: format!(
            "pgbench at scale 10 against PostgreSQL on the same machine, both over loopback, so that client, \
             server and tracer share its {} processors, and as fast as it can: a server that is not saturated \
             notices less. Each load runs for {} s, and meanwhile the tracer comes and goes. Each {} s that it \
             watches, from {} s after it has attached, are compared with those before it came and those after it \
             went; median of the differences and its 95 % confidence interval. An interval that spans zero means \
             that no difference was shown. What the tracer took by its own count is what its programs took in the \
             kernel and what the collector did.",
            std::thread::available_parallelism().map_or(1, usize::from),
            RUN.as_secs(),
            WINDOW.as_secs(),
            SETTLING.as_secs_f64(),
        ),
        rows,
    })
}

/// Runs a load, watched and not, in turns.
fn turns(bench: &Bench, load: Load, start: impl Fn() -> Result<Watcher>) -> Result<Losses> {
    let logs = TempDir::with_prefix("pgsocktrace-")?;
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(logs.path(), open)?;
    let mut clients = run(bench, load, logs.path())?;
    let end = now()? + micros(RUN - END);
    pause(CALMING)?;
    let mut windows = vec![Window::pass()?];
    let mut losses = Losses::default();
    while now()? < end {
        let (window, cores) = start()?.watch()?;
        losses.cores.extend(cores.map(|cores| cores * 100.0));
        pause(CALMING)?;
        windows.extend([window, Window::pass()?]);
    }
    clients.ensure_running()?;
    ensure!(clients.wait(END_LIMIT)?.success(), "pgbench failed.");
    read_latencies(logs.path(), &mut windows)?;
    let mut seen = Vec::new();
    for window in &mut windows {
        seen.push((window.rate(), window.p99()?));
    }
    for turn in seen.windows(3).step_by(2) {
        let [before, with, after] = turn else { continue };
        losses.rate.push((1.0 - with.0 * 2.0 / (before.0 + after.0)) * 100.0);
        losses.p99.push((with.1 * 2.0 / (before.1 + after.1) - 1.0) * 100.0);
    }
    ensure!(losses.rate.len() >= FEWEST, "Only {} turns in {RUN:?}.", losses.rate.len());
    Ok(losses)
}

/// Starts the clients. They log every transaction into `logs`.
fn run(bench: &Bench, load: Load, logs: &Path) -> Result<Guarded> {
    let threads = load.clients.min(2).to_string();
    Guarded::spawn(
        bench
            .postgres
            .client("pgbench")?
            .args(["-n", load.script, "-M", load.protocol, "-c", &load.clients.to_string()])
            .args(["-j", &threads, "-T", &RUN.as_secs().to_string(), "--log"])
            .arg(format!("--log-prefix={}", logs.join("latencies").display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
        Signal::TERM,
    )
}

/// Reads the latencies that pgbench has logged into the windows, which are in order.
fn read_latencies(logs: &Path, windows: &mut [Window]) -> Result<()> {
    for entry in fs::read_dir(logs)? {
        for line in BufReader::new(File::open(entry?.path())?).lines() {
            let line = line?;
            let (time, latency) = transaction(&line)
                .with_context(|| format!("pgbench has logged something else: {line}"))?;
            let place = windows.partition_point(|window| window.end <= time);
            if let Some(window) = windows.get_mut(place)
                && window.begin <= time
            {
                window.latencies.push(latency);
            }
        }
    }
    Ok(())
}

/// When a transaction of pgbench's log ended, in microseconds since 1970, and its latency in
/// microseconds. A line has client, transaction, latency, script, seconds and microseconds.
fn transaction(line: &str) -> Option<(u64, f64)> {
    let mut fields = line.split(' ').skip(2);
    let latency = fields.next()?.parse().ok()?;
    let seconds: u64 = fields.nth(1)?.parse().ok()?;
    let micros: u64 = fields.next()?.parse().ok()?;
    Some((seconds * 1_000_000 + micros, latency))
}

/// As pgbench tells the time: in microseconds since 1970.
fn now() -> Result<u64> {
    Ok(micros(SystemTime::now().duration_since(UNIX_EPOCH)?))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn puts_every_threads_transactions_into_their_windows() {
        let logs = TempDir::new().unwrap();
        let line = |at: u32, latency: u32| format!("0 199 {latency} 0 1175850568 {at:06}\n");
        let lines = |latencies: std::ops::RangeInclusive<u32>| -> String {
            latencies.map(|latency| line(500_000 + latency, latency)).collect()
        };
        fs::write(logs.path().join("latencies.1"), lines(1..=60) + &line(999_999, 7)).unwrap();
        fs::write(logs.path().join("latencies.1.1"), line(0, 9) + &lines(61..=100)).unwrap();
        let window = |begin: u64, end: u64| Window {
            begin: 1_175_850_568_000_000 + begin,
            end: 1_175_850_568_000_000 + end,
            latencies: Vec::new(),
        };
        let mut windows = [window(1, 3), window(500_000, 600_000), window(999_999, 1_000_009)];
        read_latencies(logs.path(), &mut windows).unwrap();
        let counts = windows.each_ref().map(|window| window.latencies.len());
        assert_eq!(counts, [0, 100, 1]);
        assert_eq!((windows[1].rate(), windows[1].p99().unwrap()), (1000.0, 100.0));
        assert!(windows[0].p99().is_err());
        assert_eq!(transaction("x"), None);
    }
}
