//! A running `pgsocktrace` and its output.

use std::path::Path;
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use support::process::is_root;

use crate::process::{Running, Signal, bound};
use crate::readiness::{self, Readiness};
use crate::report::{Event, Finding, Report};
use crate::suite::INTERVAL;

/// Environment variable: the flavour of hooks for all traces, `a`, `b` or `c`.
pub const FLAVOUR: &str = "LEAK_TESTS_HOOKS";

/// The tracer at this path, with the privileges that it needs.
#[must_use]
pub fn privileged(binary: &Path) -> Command {
    if is_root() {
        return Command::new(binary);
    }
    let mut sudo = Command::new("sudo");
    sudo.arg(format!("--preserve-env={}", readiness::VARIABLE)).arg(binary);
    sudo
}

/// A trace that is not started yet.
pub struct TraceBuilder {
    command: Command,
    output: &'static str,
}

impl TraceBuilder {
    pub(crate) fn bare(mut command: Command) -> Self {
        if let Some(flavour) = std::env::var_os(FLAVOUR) {
            command.arg("--hooks").arg(flavour);
        }
        Self { command, output: "ndjson" }
    }

    /// A trace of connections to this port, by the binary that `command` runs.
    #[must_use]
    pub fn new(command: Command, port: u16) -> Self {
        Self::bare(command)
            .option("--interval", &format!("{}ms", INTERVAL.as_millis()))
            .option("--silent-after", "2s")
            .port(port)
    }

    /// Traces this process.
    #[must_use]
    pub fn pid(self, pid: u32) -> Self {
        self.option("--pid", &pid.to_string())
    }

    /// Traces this port.
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        self.option("--port", &port.to_string())
    }

    /// Adds an option with a value.
    #[must_use]
    pub fn option(mut self, name: &str, value: &str) -> Self {
        self.command.args([name, value]);
        self
    }

    /// Adds an option without a value.
    #[must_use]
    pub fn flag(mut self, name: &str) -> Self {
        self.command.arg(name);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Selects another output format than `ndjson`.
    #[must_use]
    pub fn output(mut self, format: &'static str) -> Self {
        self.output = format;
        self
    }

    /// The complete command line.
    #[must_use]
    pub fn into_command(mut self) -> Command {
        self.command.args(["--output", self.output]);
        self.command
    }

    /// Starts the trace and waits until its hooks are attached.
    pub fn start(self) -> Result<Trace> {
        Trace::begin(&mut self.into_command())
    }
}

/// A running trace.
pub struct Trace {
    running: Running,
}

/// The result of a trace that has ended.
pub struct Outcome {
    /// The exit status.
    pub status: ExitStatus,
    /// The whole stdout.
    pub stdout: String,
    /// The whole stderr.
    pub stderr: String,
}

impl Outcome {
    /// The final report.
    pub fn report(&self) -> Result<Report> {
        Report::printed(&self.stdout)
    }

    /// The part of stdout that a replay of the trace's recording must reproduce. Recordings do not
    /// contain the tracer's own cost per interval.
    #[must_use]
    pub fn recorded(&self) -> String {
        let is_recorded = |line: &&str| !line.starts_with("{\"event\":\"interval\"");
        self.stdout.split_inclusive('\n').filter(is_recorded).collect()
    }
}

impl Trace {
    /// Starts a tracer, and waits until its hooks are attached.
    pub fn begin(command: &mut Command) -> Result<Self> {
        let readiness = Readiness::of(command)?;
        let mut trace = Self { running: Running::start(command)? };
        let begun = readiness.wait(Instant::now() + bound(), || trace.running.ensure_running());
        begun.with_context(|| trace.complaints())?;
        Ok(trace)
    }

    /// Starts a tracer in a container, which has no notification socket, and waits for the end of
    /// an interval.
    pub fn begin_in_container(command: &mut Command) -> Result<Self> {
        let trace = Self { running: Running::start(command)? };
        trace.event("interval", |_| true).context("the trace reported no interval")?;
        Ok(trace)
    }

    /// Waits for a line on stderr that contains `words`, and returns it.
    pub fn says(&self, words: &str) -> Result<String> {
        let pick = |line: &str| line.contains(words).then(|| line.to_owned());
        let found = self.running.stderr.find_from(0, Instant::now() + bound(), pick);
        Ok(found.with_context(|| format!("no \"{words}\" {}", self.complaints()))?.1)
    }

    /// PID of the tracer.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// All events so far.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.running.stdout.all().iter().filter_map(|line| Event::read(line)).collect()
    }

    /// Waits for an event of this kind that `wanted` accepts.
    pub fn event(&self, kind: &str, wanted: impl Fn(&Event) -> bool) -> Result<Event> {
        self.event_until(kind, &wanted, Instant::now() + bound()).with_context(|| {
            format!("no such {kind} among {:#?}; {}", self.events(), self.complaints())
        })
    }

    /// Waits for an event of this kind about this connection.
    pub fn event_about(&self, kind: &str, id: u64) -> Result<Event> {
        self.event(kind, |event| event.id() == Some(id))
    }

    /// Waits for a finding that `wanted` accepts.
    pub fn finding(&self, wanted: impl Fn(&Finding) -> bool) -> Result<Finding> {
        self.finding_while(wanted, || Ok(()))
    }

    /// Waits for a finding that `wanted` accepts while the traced program goes about its work.
    pub fn finding_while(
        &self,
        wanted: impl Fn(&Finding) -> bool,
        mut work: impl FnMut() -> Result<()>,
    ) -> Result<Finding> {
        let matches = |event: &Event| event.finding().is_some_and(|finding| wanted(&finding));
        let deadline = Instant::now() + bound();
        while Instant::now() < deadline {
            work()?;
            let step = Instant::now() + Duration::from_millis(250);
            if let Some(event) = self.event_until("finding", &matches, step) {
                return event.finding().context("unreadable finding");
            }
        }
        bail!("no such finding; {}", self.diary())
    }

    /// Waits for `count` evaluations: for changes without an event of their own, and for what must
    /// not happen.
    pub fn let_intervals_pass(&self, count: u32) {
        thread::sleep(INTERVAL * count);
    }

    /// All lines of stderr so far.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.running.stderr.all()
    }

    /// Ends the trace with SIGINT, as Ctrl-C does, and reads its report.
    pub fn stop(self) -> Result<Report> {
        self.running.signal(Signal::INT);
        let outcome = self.outcome()?;
        ensure!(outcome.status.success(), "ended with {}: {}", outcome.status, outcome.stderr);
        outcome.report()
    }

    /// Sends a signal to the tracer.
    pub fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    /// Waits until the trace ends by itself.
    pub fn outcome(mut self) -> Result<Outcome> {
        let status = self.running.wait()?;
        let (stdout, stderr) = (self.running.stdout.to_end()?, self.running.stderr.to_end()?);
        ensure!(!stderr.contains("panicked"), "it panicked: {stderr}");
        Ok(Outcome { status, stdout, stderr })
    }

    fn event_until(
        &self,
        kind: &str,
        wanted: &impl Fn(&Event) -> bool,
        deadline: Instant,
    ) -> Option<Event> {
        let pick =
            |line: &str| Event::read(line).filter(|event| event.kind == kind && wanted(event));
        Some(self.running.stdout.find_from(0, deadline, pick)?.1)
    }

    /// The latest events and stderr, for error messages.
    fn diary(&self) -> String {
        const LONGEST: usize = 400;
        const MOST: usize = 40;
        let short = |line: &String| line.chars().take(LONGEST).collect::<String>();
        let events = self.running.stdout.all();
        let from = events.len().saturating_sub(MOST);
        let events: Vec<_> = events[from..].iter().map(short).collect();
        format!("the last events:\n{}\n{}", events.join("\n"), self.complaints())
    }

    fn complaints(&self) -> String {
        format!("on stderr: {}", self.running.stderr.all().join("\n"))
    }
}
