//! Traced client programs: they read one command per line and answer each with one line.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::process::{Running, Signal, bound};

/// A program of `tests/apps/` that waits for commands.
pub struct Program {
    running: Running,
    answers: usize,
}

/// An answer's `key=value` words.
#[derive(Debug)]
pub struct Reply(String);

impl Reply {
    /// The value of `key`, as a number.
    pub fn number(&self, key: &str) -> Result<u64> {
        self.word(key)?.parse().with_context(|| format!("{key} in \"{}\"", self.0))
    }

    /// All keys and values.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.split_whitespace().filter_map(|word| word.split_once('='))
    }

    /// The value of `key`.
    pub fn word(&self, key: &str) -> Result<&str> {
        self.0
            .split_whitespace()
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
            .with_context(|| format!("no {key} in \"{}\"", self.0))
    }
}

impl Program {
    /// Starts the program.
    pub fn start(command: &mut Command) -> Result<Self> {
        Ok(Self { running: Running::start(command)?, answers: 0 })
    }

    /// The program's PID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Sends a command without waiting for the answer.
    pub fn tell(&mut self, command: &str) -> Result<()> {
        self.running.say(command)
    }

    /// Waits for the answer to the oldest unanswered command.
    pub fn answer(&mut self) -> Result<Reply> {
        let deadline = Instant::now() + bound();
        let found =
            self.running.stdout.find_from(self.answers, deadline, |line| Some(line.to_owned()));
        let Some((number, line)) = found else {
            bail!("no answer; {}", self.complaints());
        };
        self.answers = number + 1;
        ensure!(line.starts_with("ok"), "the client program {line}");
        Ok(Reply(line))
    }

    /// Sends a command and waits for its answer.
    pub fn ok(&mut self, command: &str) -> Result<Reply> {
        self.tell(command)?;
        self.answer().with_context(|| format!("command \"{command}\""))
    }

    /// The program's stderr, for error messages.
    #[must_use]
    pub fn complaints(&self) -> String {
        format!("on stderr: {}", self.running.stderr.all().join(" / "))
    }

    /// Kills the program and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.running.signal(Signal::KILL);
        self.running.wait()?;
        Ok(())
    }

    /// Waits until the program ends by itself.
    pub fn ended(&mut self) -> Result<()> {
        self.running.wait()?;
        Ok(())
    }
}
