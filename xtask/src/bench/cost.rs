//! What tracing costs.

use std::{
    fs,
    io::{self, BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{load::Server, programs::Statistics};
use crate::{
    build, demo,
    postgres::Postgres,
    process::{self, Guarded},
};

/// How long the tracer gets to attach before a measurement begins.
const ATTACH: Duration = Duration::from_secs(2);

/// How long one load runs, in the seconds that pgbench wants.
const SECONDS: u32 = 5;

/// How many pairs of runs, traced and untraced, make the median.
const PAIRS: usize = 5;

/// How long the tracer may take to write its report.
const REPORT_LIMIT: Duration = Duration::from_secs(30);

/// Connections held open while the tracer's memory is read.
const HELD: usize = 1000;

/// What a run of the benchmark works with.
struct Bench {
    binary: PathBuf,
    postgres: Postgres,
}

/// Measures everything and prints it.
pub(super) fn run(workspace: &Path) -> Result<()> {
    let bench = Bench { binary: build::run(workspace)?, postgres: Postgres::start()? };
    let database = &bench.postgres;
    process::output(database.client("pgbench").args(["-i", "-q", "-s", "10"]))?;
    let statistics = Statistics::on()?;

    println!("ns per event, by program");
    let other_port = database.port() ^ 1;
    bench.events(&statistics, "port mismatch", other_port, || bench.pgbench(&[]).map(drop))?;
    bench.events(&statistics, "counted send (COPY)", database.port(), || bench.copy())?;
    bench.events(&statistics, "request", database.port(), || bench.pgbench(&[]).map(drop))?;
    bench.events(&statistics, "connect", database.port(), || bench.pgbench(&["-C"]).map(drop))?;
    drop(statistics);

    bench.connects()?;
    bench.throughput()?;
    bench.memory()?;
    bench.first_event()
}

impl Bench {
    /// Starts a tracer and waits until it is attached.
    fn trace(&self, port: u16, output: &str, stdout: Stdio) -> Result<Guarded> {
        let mut command = demo::tracer(&self.binary);
        command
            .args(["--quiet", "--port", &port.to_string(), "--output", output])
            .stdin(Stdio::null())
            .stdout(stdout);
        let mut tracer = Guarded::spawn(&mut command, libc::SIGINT)?;
        process::pause(ATTACH)?;
        tracer.ensure_running()?;
        Ok(tracer)
    }

    /// pgbench's select-only load on eight connections; returns transactions per second.
    fn pgbench(&self, more: &[&str]) -> Result<f64> {
        let output = process::output(
            self.postgres
                .client("pgbench")
                .args(["-n", "-S", "-c", "8", "-j", "2", "-T", &SECONDS.to_string()])
                .args(more),
        )?;
        transactions_per_second(&output).context("pgbench did not say how fast it was.")
    }

    /// Many sends of one long request: a table copied in over the wire.
    fn copy(&self) -> Result<()> {
        let script = "create unlogged table if not exists copied (n bigint); \
                      \\copy copied from program 'seq 3000000'";
        let mut psql = self.postgres.client("psql");
        for command in script.split("; ") {
            psql.args(["-c", command]);
        }
        process::output(psql.arg("-q")).map(drop)
    }

    /// Prints what each program of a tracer of `port` costs under a load.
    fn events(
        &self,
        statistics: &Statistics,
        what: &str,
        port: u16,
        load: impl Fn() -> Result<()>,
    ) -> Result<()> {
        let tracer = self.trace(port, "json", Stdio::null())?;
        let before = statistics.of(tracer.pid())?;
        load()?;
        let after = statistics.of(tracer.pid())?;
        println!("  {what}");
        for cost in after.since(&before) {
            println!("    {:<28}{:>8.0} ns{:>12} runs", cost.name, cost.nanoseconds, cost.runs);
        }
        Ok(())
    }

    /// Opens connections as fast as it can, and counts the events that were lost.
    fn connects(&self) -> Result<()> {
        println!("connections per second, and events lost");
        for threads in [1, 2, 4] {
            let server = Server::open()?;
            let mut tracer = self.trace(server.port(), "json", Stdio::piped())?;
            let rate = server.storm(threads, Duration::from_secs(3))?;
            tracer.dismiss();
            let stdout = tracer.child().stdout.take().context("The tracer has no output.")?;
            let report: Value = serde_json::from_reader(stdout)?;
            tracer.wait(REPORT_LIMIT)?;
            let events = &report["events"];
            println!(
                "  {threads} threads: {rate:.0}/s, {} of {} lost",
                events["lost"], events["received"]
            );
        }
        Ok(())
    }

    /// Compares pgbench traced and untraced, in turns, so that drift hits both alike.
    fn throughput(&self) -> Result<()> {
        let mut ratios = Vec::with_capacity(PAIRS);
        for _ in 0..PAIRS {
            let untraced = self.pgbench(&[])?;
            let tracer = self.trace(self.postgres.port(), "json", Stdio::null())?;
            let traced = self.pgbench(&[])?;
            drop(tracer);
            ratios.push(traced / untraced);
        }
        ratios.sort_by(f64::total_cmp);
        println!(
            "pgbench -S, traced to untraced: median {:.3} of {PAIRS} pairs ({:.3} to {:.3})",
            ratios[PAIRS / 2],
            ratios[0],
            ratios[PAIRS - 1]
        );
        Ok(())
    }

    /// Prints the tracer's resident memory while many connections are open.
    fn memory(&self) -> Result<()> {
        let server = Server::open()?;
        let tracer = self.trace(server.port(), "json", Stdio::null())?;
        let empty = resident(tracer.pid())?;
        let held = (0..HELD).map(|_| server.connect()).collect::<io::Result<Vec<_>>>()?;
        process::pause(ATTACH)?;
        let full = resident(tracer.pid())?;
        println!("resident memory: {empty} KiB empty, {full} KiB with {} connections", held.len());
        Ok(())
    }

    /// Prints how long after its start the tracer reports a first event.
    fn first_event(&self) -> Result<()> {
        let mut command: Command = demo::tracer(&self.binary);
        command
            .args(["--quiet", "--output", "ndjson", "--port", &self.postgres.port().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let start = Instant::now();
        let mut tracer = Guarded::spawn(&mut command, libc::SIGINT)?;
        let stdout = tracer.child().stdout.take().context("The tracer has no output.")?;
        let _load = Guarded::spawn(
            self.postgres
                .client("pgbench")
                .args(["-n", "-S", "-C", "-T", "20"])
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
            libc::SIGTERM,
        )?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(!line.is_empty(), "The tracer reported no event.");
        println!("first event: {} ms after the start", start.elapsed().as_millis());
        Ok(())
    }
}

/// What pgbench says of its speed.
fn transactions_per_second(output: &str) -> Option<f64> {
    let line = output.lines().find_map(|line| line.strip_prefix("tps = "))?;
    line.split(' ').next()?.parse().ok()
}

/// Resident memory of a process, in KiB.
fn resident(pid: u32) -> Result<u64> {
    memory(pid, "VmRSS:")
}

/// The most resident memory that a process has had so far, in KiB.
pub(super) fn resident_peak(pid: u32) -> Result<u64> {
    memory(pid, "VmHWM:")
}

/// A field of /proc/PID/status, in KiB.
fn memory(pid: u32, field: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB")?.parse().ok())
        .context("The kernel does not tell the resident memory.")
}

#[cfg(test)]
mod tests {
    use super::transactions_per_second;

    #[test]
    fn reads_the_speed_of_pgbench() {
        let output =
            "latency average = 0.1 ms\ntps = 12345.678 (without initial connection time)\n";
        assert_eq!(transactions_per_second(output), Some(12345.678));
        assert_eq!(transactions_per_second("tps = fast"), None);
        assert_eq!(transactions_per_second(""), None);
    }
}
