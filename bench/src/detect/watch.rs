//! Follows a program and its tracer during a run, and makes the server do its part.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{
    judge::{Observation, is_grave},
    manifest::{Deed, Scenario},
    scenario::{INTERVAL, SILENT_AFTER, Stage, THIRD, application},
};
use support::{command::output, process::ensure_not_stopped};

/// How long after the third leak, beyond the aim, a detection is still waited for.
const SLACK: Duration = Duration::from_secs(25);

/// How long a leaking program is watched after it was found out: for wrong accusations.
const AFTERMATH: Duration = Duration::from_secs(6);

/// How long after its leak a connection is closed by the server, where that belongs to the pattern.
const CLOSED_AFTER: Duration = Duration::from_millis(700);

/// What a program or its tracer said.
pub(super) enum Said {
    Program(String),
    Tracer(String),
}

/// A run in progress.
pub(super) struct Run<'a> {
    stage: &'a Stage<'a>,
    scenario: &'a Scenario,
    said: Receiver<(i64, Said)>,
    pub(super) seen: Observation,
    pub(super) program_ready: bool,
    pub(super) reported: bool,
    found: Option<Instant>,
    third: Option<Instant>,
    attached: Option<Instant>,
    /// What the server is still to close, and when.
    to_close: Vec<(Instant, String)>,
}

impl<'a> Run<'a> {
    /// Nothing has been seen yet.
    pub(super) fn new(
        stage: &'a Stage<'a>,
        scenario: &'a Scenario,
        said: Receiver<(i64, Said)>,
    ) -> Self {
        Self {
            stage,
            scenario,
            said,
            seen: Observation::default(),
            program_ready: scenario.program.plain,
            reported: false,
            found: None,
            third: None,
            attached: None,
            to_close: Vec::new(),
        }
    }

    /// Listens until `done`, or fails when that takes too long.
    pub(super) fn until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> Result<()> {
        let end = Instant::now() + limit;
        while !done(self) {
            ensure!(Instant::now() < end, "Nothing for {} s.", limit.as_secs());
            self.hear(Duration::from_millis(100))?;
        }
        Ok(())
    }

    /// Listens for a while.
    pub(super) fn pass(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.hear(Duration::from_millis(100))?;
        }
        Ok(())
    }

    /// The tracer is ready.
    pub(super) fn attached(&mut self, at: i64) {
        self.seen.attached = at;
        self.attached = Some(Instant::now());
    }

    /// Listens for as long as the pattern has to be watched.
    pub(super) fn watch(&mut self) -> Result<()> {
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
            // Nothing can be found before both are there.
            match (self.third.max(self.attached.filter(|_| self.third.is_some())), self.found) {
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
        ensure_not_stopped()?;
        let (at, said) = match self.said.recv_timeout(limit) {
            Ok(said) => said,
            Err(RecvTimeoutError::Timeout) => return Ok(()),
            Err(RecvTimeoutError::Disconnected) => bail!("Program and tracer have ended."),
        };
        match said {
            Said::Program(line) => self.heed(&line),
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
        output(self.stage.postgres.client("psql")?.args(["-XAtqc", &query])).map(drop)
    }
}
