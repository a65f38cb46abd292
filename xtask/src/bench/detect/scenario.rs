//! One program, one pattern, one tracer.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{
    judge::{Observation, is_grave},
    manifest::{CORPUS, Deed, Scenario},
    programs::Workshop,
};
use crate::{
    demo,
    postgres::Postgres,
    process::{self, Guarded},
};

/// What the tracer is told: how long without payload counts as silent.
pub(super) const SILENT_AFTER: Duration = Duration::from_secs(5);

/// What the tracer is told: how often it evaluates.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// How long a program or the tracer may take to be ready, on a machine that is busy.
const READY: Duration = Duration::from_secs(60);

/// How long until three connections must have leaked.
const THIRD: Duration = Duration::from_secs(90);

/// How long after the third leak, beyond the aim, a detection is still waited for.
const SLACK: Duration = Duration::from_secs(25);

/// How long a leaking program is watched after it was found out: for wrong accusations.
const AFTERMATH: Duration = Duration::from_secs(6);

/// How long after its leak a connection is closed by the server, where that belongs to the pattern.
const CLOSED_AFTER: Duration = Duration::from_millis(700);

/// What all runs share.
pub(super) struct Stage<'a> {
    pub(super) workspace: &'a Path,
    pub(super) workshop: &'a Workshop,
    pub(super) postgres: &'a Postgres,
    pub(super) tracer: &'a Path,
    /// For what programs write; gone with the bench.
    pub(super) scratch: &'a Path,
    /// The port of a server that accepts and says nothing.
    pub(super) hole: u16,
    /// The port of a server that does not even accept.
    pub(super) full: u16,
    /// How long healthy programs are watched.
    pub(super) watch: Duration,
}

/// A program's process group, which goes with this value.
struct Group(Guarded);

impl Drop for Group {
    fn drop(&mut self) {
        let group = -self.0.pid().cast_signed();
        // SAFETY: kill takes no pointers. The leader has not been waited for, so the group is ours.
        unsafe { libc::kill(group, libc::SIGKILL) };
    }
}

/// What a program or its tracer said.
enum Said {
    Program(String),
    Tracer(String),
    Log(String),
}

/// A run in progress.
struct Run<'a> {
    stage: &'a Stage<'a>,
    scenario: &'a Scenario,
    said: Receiver<(i64, Said)>,
    seen: Observation,
    program_ready: bool,
    tracer_ready: bool,
    reported: bool,
    found: Option<Instant>,
    third: Option<Instant>,
    /// What the server is still to close, and when.
    to_close: Vec<(Instant, String)>,
}

/// Runs a scenario with a program's command, and returns what was seen.
pub(super) fn run(stage: &Stage<'_>, scenario: &Scenario, command: Command) -> Result<Observation> {
    let logs = stage.workshop.target().join("logs").join(scenario.title().replace('/', "-"));
    fs::create_dir_all(&logs)?;
    let (sender, said) = mpsc::channel();
    let mut command = prepare(stage, scenario, command);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(File::create(logs.join("program"))?);
    let mut program = Group(Guarded::spawn(&mut command, libc::SIGTERM)?);
    let child = program.0.child();
    let mut stdin = child.stdin.take().context("The program has no input.")?;
    let stdout = child.stdout.take().context("The program has no output.")?;
    listen(stdout, sender.clone(), logs.join("said"), Said::Program)?;
    let mut run = Run {
        stage,
        scenario,
        said,
        seen: Observation::default(),
        program_ready: scenario.program.plain,
        tracer_ready: false,
        reported: false,
        found: None,
        third: None,
        to_close: Vec::new(),
    };
    run.until(READY, |run| run.program_ready).context("The program does not get ready.")?;

    let mut tracer = trace(stage, scenario, program.0.pid())?;
    let child = tracer.child();
    let stdout = child.stdout.take().context("The tracer has no output.")?;
    let stderr = child.stderr.take().context("The tracer has no log.")?;
    listen(stdout, sender.clone(), logs.join("trace"), Said::Tracer)?;
    listen(stderr, sender, logs.join("tracer"), Said::Log)?;
    run.until(READY, |run| run.tracer_ready).context("The tracer does not begin.")?;

    writeln!(stdin, "go").context("The program does not listen.")?;
    run.watch()?;
    program.0.ensure_running()?;
    run.seen.ended = now();
    tracer.dismiss();
    run.until(READY, |run| run.reported).context("The tracer gives no report.")?;
    let status = tracer.wait(READY)?;
    ensure!(status.success(), "pgsocktrace failed: {status}.");
    Ok(run.seen)
}

/// Adds what the program is told. Pools, pauses and load differ from scenario to scenario, so that no verdict
/// can depend on one timing.
fn prepare(stage: &Stage<'_>, scenario: &Scenario, program: Command) -> Command {
    let mut command = if scenario.pattern.replaced {
        let mut supervisor = Command::new("/usr/bin/python3");
        supervisor.arg(stage.workspace.join(CORPUS).join("supervisor.py"));
        supervisor.arg(program.get_program()).args(program.get_args());
        for (name, value) in program.get_envs() {
            supervisor.env(name, value.unwrap_or_default());
        }
        supervisor
    } else {
        program
    };
    if !scenario.program.plain {
        command.arg(scenario.told());
    }
    let pool = scenario.pattern.pool.unwrap_or_else(|| scenario.pick("pool", 40..70));
    command
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", stage.postgres.port().to_string())
        .env("PGUSER", "postgres")
        .env("PGDATABASE", "postgres")
        .env("PGSSLMODE", if scenario.tls { "require" } else { "disable" })
        .env("PGAPPNAME", application(scenario))
        .env("CORPUS_BINARIES", stage.postgres.programs())
        .env("CORPUS_SCRATCH", stage.scratch)
        .env("CORPUS_CERTIFICATE", stage.postgres.certificate())
        .env("CORPUS_HOLE", hole(stage, scenario).to_string())
        .env("CORPUS_POOL", pool.to_string())
        .env("CORPUS_EVERY", scenario.pick("every", 600..2200).to_string())
        .env("CORPUS_LOAD", scenario.pick("load", 20..250).to_string());
    command
}

/// What the server knows the program by.
fn application(scenario: &Scenario) -> String {
    scenario.title().replace('/', "-")
}

/// The port of the server that is of no help to this scenario.
fn hole(stage: &Stage<'_>, scenario: &Scenario) -> u16 {
    if scenario.pattern.accepts { stage.hole } else { stage.full }
}

fn trace(stage: &Stage<'_>, scenario: &Scenario, pid: u32) -> Result<Guarded> {
    let mut command = demo::tracer(stage.tracer);
    command
        .args(["--pid", &pid.to_string(), "--children", "--output", "ndjson"])
        .args([
            "--port",
            &stage.postgres.port().to_string(),
            "--port",
            &hole(stage, scenario).to_string(),
        ])
        .args(["--silent-after", &format!("{}s", SILENT_AFTER.as_secs())])
        .args(["--interval", &format!("{}s", INTERVAL.as_secs())])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Guarded::spawn(&mut command, libc::SIGINT)
}

/// Hands on every line of a pipe with the time at which it came, and keeps a copy.
fn listen(
    pipe: impl Read + Send + 'static,
    sender: Sender<(i64, Said)>,
    copy: PathBuf,
    wrap: fn(String) -> Said,
) -> Result<()> {
    let mut copy = File::create(copy)?;
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let at = now();
            // A copy for people: that the disk is full must not end the run.
            let _ = writeln!(copy, "{line}");
            if sender.send((at, wrap(line))).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Milliseconds since 1970, as programs tell them, too.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl Run<'_> {
    /// Listens until `done`, or fails when that takes too long.
    fn until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> Result<()> {
        let end = Instant::now() + limit;
        while !done(self) {
            ensure!(Instant::now() < end, "Nothing for {} s.", limit.as_secs());
            self.hear(Duration::from_millis(100))?;
        }
        Ok(())
    }

    /// Listens for as long as the pattern has to be watched.
    fn watch(&mut self) -> Result<()> {
        let start = Instant::now();
        let mut restart = (self.scenario.pattern.server == Deed::Restart)
            .then(|| start + Duration::from_millis(self.scenario.pick("restart", 8000..15000)));
        loop {
            self.hear(Duration::from_millis(100))?;
            if restart.is_some_and(|at| at < Instant::now()) {
                restart = None;
                self.close(&format!("application_name = '{}'", application(self.scenario)))?;
            }
            let due = |closing: &(Instant, String)| closing.0 < Instant::now();
            for (_, port) in
                self.to_close.extract_if(.., |closing| due(closing)).collect::<Vec<_>>()
            {
                self.close(&format!("client_port = {port}"))?;
            }
            if !self.scenario.leaks() {
                if start.elapsed() > self.stage.watch {
                    return Ok(());
                }
                continue;
            }
            match (self.third, self.found) {
                (None, _) => ensure!(start.elapsed() < THIRD, "The program does not leak."),
                (Some(third), Some(found)) if third.max(found).elapsed() > AFTERMATH => {
                    return Ok(());
                }
                (Some(third), None) if third.elapsed() > SILENT_AFTER + 2 * INTERVAL + SLACK => {
                    return Ok(());
                }
                _ => {}
            }
        }
    }

    /// Takes note of the next thing that is said.
    fn hear(&mut self, limit: Duration) -> Result<()> {
        process::ensure_not_stopped()?;
        let (at, said) = match self.said.recv_timeout(limit) {
            Ok(said) => said,
            Err(RecvTimeoutError::Timeout) => return Ok(()),
            Err(RecvTimeoutError::Disconnected) => bail!("Program and tracer have ended."),
        };
        match said {
            Said::Program(line) => self.heed(&line),
            Said::Log(line) => self.tracer_ready |= line.contains("tracing"),
            Said::Tracer(line) => {
                let line: Value =
                    serde_json::from_str(&line).context("The tracer's line is broken")?;
                self.reported |= line["event"] == "report";
                if line["event"] == "finding" && is_grave(self.scenario, &line) {
                    self.found.get_or_insert_with(Instant::now);
                }
                self.seen.lines.push((at, line));
            }
        }
        Ok(())
    }

    /// Takes note of a line of the program: `ready`, or `leak WHEN PORT`.
    fn heed(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["ready"] => self.program_ready = true,
            ["leak", at, port] => {
                let (Ok(at), Ok(port)) = (at.parse(), port.parse()) else { return };
                self.seen.leaks.push((at, port));
                if self.seen.leaks.len() == 3 {
                    self.third = Some(Instant::now());
                }
                if self.scenario.pattern.server == Deed::CloseLeaked {
                    self.to_close.push((Instant::now() + CLOSED_AFTER, port.to_string()));
                }
            }
            _ => {}
        }
    }

    /// Ends the server's sessions that a condition picks.
    fn close(&self, which: &str) -> Result<()> {
        let query = format!("select pg_terminate_backend(pid) from pg_stat_activity where {which}");
        process::output(self.stage.postgres.client("psql").args(["-XAtqc", &query])).map(drop)
    }
}
