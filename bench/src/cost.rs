//! What tracing costs; writes `docs/performance.md`.

mod busy;
mod collector;
mod crowd;
mod events;
mod figure;
mod growth;
mod instructions;
mod interval;
mod peers;
mod storms;
mod throughput;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use self::{figure::Section, interval::Events};
use harness::{Server, readiness::Readiness, server::Purpose, trace::privileged};
use support::{
    command::output,
    process::{Guarded, Signal},
    workspace::{self, target_directory},
};

/// Where the tables go.
const DOCUMENT: &str = "docs/performance.md";

/// What stands at the page's end: of the targets that are missed, what was tried and what the limit
/// is.
const LIMITS: &str = include_str!("cost/limits.md");

/// How long the tracer may take to attach.
const ATTACH_LIMIT: Duration = Duration::from_secs(30);

/// What is measured with.
struct Bench {
    workspace: PathBuf,
    binary: PathBuf,
    postgres: Server,
}

/// A tracer that is attached.
struct Traced {
    tracer: Guarded,
    /// The time from its start until it was attached.
    took: Duration,
}

/// A part of the page, which can be measured alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
    Machine,
    Growth,
    Events,
    Storms,
    Collector,
    Throughput,
}

impl Part {
    /// Its name on the command line and among the kept figures.
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn measure(self, bench: &Bench) -> Result<Vec<Section>> {
        match self {
            Self::Machine => instructions::measure(bench),
            Self::Growth => growth::measure(bench).map(|section| vec![section]),
            Self::Events => events::measure(bench).map(|section| vec![section]),
            Self::Storms => storms::measure(bench).map(|section| vec![section]),
            Self::Collector => collector::measure(bench).map(|section| vec![section]),
            Self::Throughput => throughput::measure(bench).map(|section| vec![section]),
        }
    }
}

/// Measures the parts, or all of them, prints them, and keeps what came out.
pub(super) fn run(workspace: &Path, parts: &[Part]) -> Result<()> {
    let bench = Bench {
        workspace: workspace.to_owned(),
        binary: workspace::binary(workspace),
        postgres: Server::alone(Purpose::Measurements)?,
    };
    output(bench.postgres.client("pgbench")?.args(["-i", "-q", "-s", "10"]))?;
    let parts = if parts.is_empty() { Part::value_variants() } else { parts };
    for part in parts {
        let sections = part.measure(&bench)?;
        let page: Vec<String> = sections.iter().map(Section::markdown).collect();
        let page = page.join("\n");
        println!("{page}");
        keep(workspace, &part.name(), &page, &sections)?;
    }
    Ok(())
}

/// Keeps a part's figures as JSON beside what was built, and once there are some of every part,
/// writes the page: one part can be measured again without the others, which take three quarters of
/// an hour.
fn keep(workspace: &Path, part: &str, page: &str, sections: &[Section]) -> Result<()> {
    let data = target_directory(workspace).join("performance.json");
    let mut all: Map<String, Value> = match fs::read(&data) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is damaged: remove it.", data.display()))?,
        Err(_) => Map::new(),
    };
    let measured = Timestamp::now().strftime("%Y-%m-%d").to_string();
    let machine = machine()?;
    let figures =
        json!({ "measured": measured, "machine": machine, "page": page, "sections": sections });
    all.insert(part.to_owned(), figures);
    fs::write(&data, format!("{:#}\n", Value::Object(all.clone())))
        .context("Cannot write the figures")?;
    println!("Written to {}.", data.display());
    let text = |name: &str, field: &str| all.get(name)?.get(field)?.as_str();
    let mut pages = String::new();
    let mut places = Vec::new();
    for part in Part::value_variants() {
        let name = part.name();
        let (Some(page), Some(measured), Some(machine)) =
            (text(&name, "page"), text(&name, "measured"), text(&name, "machine"))
        else {
            return Ok(());
        };
        let _ = write!(pages, "\n{page}");
        places.push(format!("on {measured}, on {machine}"));
    }
    places.dedup();
    let document = workspace.join(DOCUMENT);
    let places = places.join("; ");
    let whole = format!(
        "# What tracing costs\n\nMeasured by `cargo xtask bench` {places}. The machine is shared and noisy: \
         compare what stands in one row. Medians, with bounds in brackets.\n{pages}{LIMITS}"
    );
    fs::write(&document, whole).context("Cannot write the page")?;
    println!("Written to {}.", document.display());
    Ok(())
}

/// Kernel, processor and PostgreSQL.
fn machine() -> Result<String> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    Ok(format!(
        "Linux {}, {} processors ({})",
        kernel.trim(),
        thread::available_parallelism()?,
        model.map_or("unknown", |(_, model)| model.trim()),
    ))
}

impl Bench {
    /// Starts a tracer of `port` and waits until it is attached. It prints a report when it ends.
    fn trace(&self, port: u16, options: &[&str]) -> Result<Traced> {
        self.start(port, "json", options)
    }

    /// Starts a tracer of `port` that prints events, and waits until it is attached.
    fn follow(&self, port: u16, options: &[&str]) -> Result<(Traced, Events)> {
        let mut traced = self.start(port, "ndjson", options)?;
        let stdout = traced.tracer.child().stdout.take().context("The tracer has no output.")?;
        Ok((traced, Events::read(stdout)))
    }

    fn start(&self, port: u16, format: &str, options: &[&str]) -> Result<Traced> {
        let mut command = privileged(&self.binary);
        command
            .args(["--port", &port.to_string(), "--output", format, "--quiet"])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let readiness = Readiness::of(&mut command)?;
        let start = Instant::now();
        let mut tracer = Guarded::spawn(&mut command, Signal::INT)?;
        readiness.wait(start + ATTACH_LIMIT, || tracer.ensure_running())?;
        Ok(Traced { tracer, took: start.elapsed() })
    }
}

/// CPU time of all threads of a process.
fn cpu_time(pid: u32) -> Result<Duration> {
    let mut sum = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // The first number of schedstat, in nanoseconds. A thread may have ended.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        let nanoseconds = text.split(' ').next().and_then(|number| number.parse().ok());
        sum += Duration::from_nanos(nanoseconds.context("The kernel does not tell CPU times.")?);
    }
    Ok(sum)
}

/// Resident memory of a process, in KiB.
fn resident(pid: u32) -> Result<u64> {
    memory(pid, "VmRSS:")
}

/// The most resident memory that a process has had so far, in KiB.
pub(crate) fn resident_peak(pid: u32) -> Result<u64> {
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
