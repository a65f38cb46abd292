//! Runs one program with one pattern under one tracer.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::{self, Sender},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    judge::Observation,
    manifest::{Arrival, CORPUS, Scenario},
    programs::Builder,
    watch::{Run, Said},
};
use harness::{Server, readiness::Readiness, trace::privileged};
use support::process::{Guarded, Signal, ensure_not_stopped};

/// What the tracer is told: how long without payload counts as silent.
pub(super) const SILENT_AFTER: Duration = Duration::from_secs(5);

/// What the tracer is told: how often it evaluates.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// How long until three connections must have leaked.
pub(super) const THIRD: Duration = Duration::from_secs(90);

/// How long more than three leaks are waited for before a late tracer comes.
const LEAD: Duration = Duration::from_secs(15);

/// How long the last leak may take after a program was told that it has lost enough.
const LAST_LEAK: Duration = Duration::from_secs(4);

/// How long a program or the tracer may take to be ready, on a machine that is busy.
const READY: Duration = Duration::from_secs(180);

/// What all runs share.
pub(super) struct Stage<'a> {
    pub(super) workspace: &'a Path,
    pub(super) builder: &'a Builder,
    pub(super) postgres: &'a Server,
    /// Where PostgreSQL's own programs are.
    pub(super) programs: PathBuf,
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
        self.0.kill_group();
    }
}

/// Runs a scenario with a program's command, and returns what was seen.
pub(super) fn run(stage: &Stage<'_>, scenario: &Scenario, command: Command) -> Result<Observation> {
    let logs = stage.builder.target().join("logs").join(scenario.title().replace('/', "-"));
    fs::create_dir_all(&logs)?;
    let (sender, said) = mpsc::channel();
    let mut command = prepare(stage, scenario, command);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(File::create(logs.join("program"))?);
    let mut program = Group(Guarded::spawn(&mut command, Signal::TERM)?);
    let child = program.0.child();
    let mut stdin = child.stdin.take().context("The program has no input.")?;
    let stdout = child.stdout.take().context("The program has no output.")?;
    listen(stdout, sender.clone(), logs.join("said"), Said::Program)?;
    let mut run = Run::new(stage, scenario, said);
    run.until(READY, |run| run.program_ready).context("The program does not get ready.")?;
    if scenario.arrival != Arrival::Early {
        writeln!(stdin, "go").context("The program does not listen.")?;
        let some = usize::try_from(scenario.pick("leaks", 4..12))?;
        lead_in(&mut run, scenario, some)?;
    }
    if scenario.arrival.is_over() {
        writeln!(stdin, "enough").context("The program does not listen.")?;
        run.pass(LAST_LEAK)?;
    }

    let mut command = trace(stage, scenario, program.0.pid());
    let readiness = Readiness::of(&mut command)?;
    command.stderr(File::create(logs.join("tracer"))?);
    let mut tracer = Guarded::spawn(&mut command, Signal::INT)?;
    let child = tracer.child();
    let stdout = child.stdout.take().context("The tracer has no output.")?;
    listen(stdout, sender, logs.join("trace"), Said::Tracer)?;
    readiness.wait(Instant::now() + READY, || {
        ensure_not_stopped()?;
        tracer.ensure_running()
    })?;

    run.attached(now());
    if scenario.arrival == Arrival::Early {
        writeln!(stdin, "go").context("The program does not listen.")?;
    }
    run.watch()?;
    program.0.ensure_running()?;
    run.seen.ended = now();
    tracer.dismiss();
    run.until(READY, |run| run.reported).context("The tracer gives no report.")?;
    let status = tracer.wait(READY)?;
    ensure!(status.success(), "pgsocktrace failed: {status}.");
    Ok(run.seen)
}

/// Lets a pattern go on without a tracer, until some connections have leaked.
fn lead_in(run: &mut Run<'_>, scenario: &Scenario, some: usize) -> Result<()> {
    if !scenario.leaks() {
        return run.pass(Duration::from_millis(scenario.pick("lead", 3000..9000)));
    }
    run.until(THIRD, |run| run.seen.leaks.len() >= 3).context("The program does not leak.")?;
    // Where leaks are rare, or the pool is small, fewer have to do.
    let end = Instant::now() + LEAD;
    run.until(2 * LEAD, |run| run.seen.leaks.len() >= some || Instant::now() > end)
}

/// Adds what the program is told. Pools, pauses and load differ from scenario to scenario, so that
/// no verdict can depend on one timing.
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
        .env("CORPUS_BINARIES", &stage.programs)
        .env("CORPUS_SCRATCH", stage.scratch)
        .env("CORPUS_CERTIFICATE", stage.postgres.certificate())
        .env("CORPUS_HOLE", hole(stage, scenario).to_string())
        .env("CORPUS_POOL", pool.to_string())
        .env("CORPUS_EVERY", scenario.pick("every", 600..2200).to_string())
        .env("CORPUS_LOAD", scenario.pick("load", 20..250).to_string());
    command
}

/// What the server knows the program by.
pub(super) fn application(scenario: &Scenario) -> String {
    scenario.title().replace('/', "-")
}

/// The port of the server that is of no help to this scenario.
fn hole(stage: &Stage<'_>, scenario: &Scenario) -> u16 {
    if scenario.pattern.accepts { stage.hole } else { stage.full }
}

fn trace(stage: &Stage<'_>, scenario: &Scenario, pid: u32) -> Command {
    let mut command = privileged(stage.tracer);
    command
        .args(["--pid", &pid.to_string(), "--children", "--output", "ndjson"])
        .args([
            "--port",
            &stage.postgres.port().to_string(),
            "--port",
            &hole(stage, scenario).to_string(),
        ])
        .args(["--silent-after", &format!("{}s", SILENT_AFTER.as_secs())])
        .args(["--interval", &format!("{}s", INTERVAL.as_secs())]);
    if scenario.arrival == Arrival::Asked {
        let port = stage.postgres.port();
        command.args(["--pg-dsn", &format!("postgres://postgres@127.0.0.1:{port}/postgres")]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
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
