//! Processes that tests start. They never outlive the test, and the test can wait for lines that
//! they print.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
pub use support::process::{Guarded, Signal};

use crate::leftovers;

/// Environment variable: another [`bound`] in seconds, for slow machines.
pub const PATIENCE: &str = "LEAK_TESTS_BOUND";

/// How long to wait for anything that must happen, on a machine that is busy with other tests.
#[must_use]
pub fn bound() -> Duration {
    let given = std::env::var(PATIENCE).ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(given.unwrap_or(25))
}

/// Interval for polling a condition.
const POLL: Duration = Duration::from_millis(50);

/// Polls until `condition` holds; after [`bound`], fails with an error that names `what`.
pub fn eventually(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + bound();
    loop {
        if condition()? {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("timed out after {:?}: {what}", bound());
        }
        thread::sleep(POLL);
    }
}

/// The lines that a process has printed so far, and whether the stream has ended.
type Printed = (Vec<String>, bool);

/// Lines of one output stream, read by a background thread.
#[derive(Clone, Default)]
pub struct Lines {
    shared: Arc<(Mutex<Printed>, Condvar)>,
}

impl Lines {
    fn read_from(stream: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let writer = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                writer.lock().0.push(String::from_utf8_lossy(&line).into_owned());
                writer.shared.1.notify_all();
            }
            writer.lock().1 = true;
            writer.shared.1.notify_all();
        });
        lines
    }

    fn lock(&self) -> MutexGuard<'_, Printed> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All lines so far.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        self.lock().0.clone()
    }

    /// Waits until the stream has ended, and returns its whole text.
    pub fn to_end(&self) -> Result<String> {
        let (guard, _) = self
            .shared
            .1
            .wait_timeout_while(self.lock(), bound(), |printed| !printed.1)
            .unwrap_or_else(PoisonError::into_inner);
        if !guard.1 {
            bail!("the output does not end");
        }
        Ok(guard.0.iter().map(|line| format!("{line}\n")).collect())
    }

    /// Returns the first line from number `from` on for which `pick` returns a value, with the
    /// line's number. Returns `None` if the stream ends or `deadline` passes first.
    pub fn find_from<T>(
        &self,
        from: usize,
        deadline: Instant,
        mut pick: impl FnMut(&str) -> Option<T>,
    ) -> Option<(usize, T)> {
        let mut next = from;
        let mut guard = self.lock();
        loop {
            while let Some(line) = guard.0.get(next) {
                if let Some(found) = pick(line) {
                    return Some((next, found));
                }
                next += 1;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if guard.1 || left.is_zero() {
                return None;
            }
            guard =
                self.shared.1.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A running process, killed on drop or when the test's thread ends.
pub struct Running {
    name: String,
    process: Guarded,
    stdin: Option<ChildStdin>,
    /// Lines of its stdout.
    pub stdout: Lines,
    /// Lines of its stderr.
    pub stderr: Lines,
}

impl Running {
    /// Starts a process with stdin, stdout and stderr connected to the test.
    pub fn start(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        leftovers::mark(command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Guarded::spawn(command, Signal::KILL)?;
        let child = process.child();
        let stdout = child.stdout.take().map(Lines::read_from).unwrap_or_default();
        let stderr = child.stderr.take().map(Lines::read_from).unwrap_or_default();
        Ok(Self { name, stdin: child.stdin.take(), stdout, stderr, process })
    }

    /// The process's PID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Writes a line to the process's stdin.
    pub fn say(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("stdin is closed")?;
        writeln!(stdin, "{line}").with_context(|| format!("{} no longer reads", self.name))
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Fails if the process has ended.
    pub fn ensure_running(&mut self) -> Result<()> {
        self.process.ensure_running()
    }

    /// Closes stdin, waits for the process to end and returns its exit status.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.stdin = None;
        self.process.wait(bound())
    }
}

/// Starts a process with its stdout redirected as given, and its stderr to a file.
pub fn start_silently(command: &mut Command, stdout: Stdio, stderr: &Path) -> Result<Guarded> {
    leftovers::mark(command);
    command.stdin(Stdio::null()).stdout(stdout).stderr(File::create(stderr)?);
    Guarded::spawn(command, Signal::KILL)
}
