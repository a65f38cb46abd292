//! Processes that tests start: they never outlive the test, and their lines can be waited for.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::leftovers;

/// Gives another [`bound`], in seconds, for machines that are slower than others.
pub const PATIENCE: &str = "LEAK_TESTS_BOUND";

/// How long anything that must happen is waited for, on a machine that is busy with other tests.
#[must_use]
pub fn bound() -> Duration {
    let given = std::env::var(PATIENCE).ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(given.unwrap_or(25))
}

/// How often conditions that cannot announce themselves are looked at.
const POLL: Duration = Duration::from_millis(50);

/// Waits until `condition` holds; an error that names `what` when it does not within [`bound`].
///
/// # Errors
///
/// When the condition fails, or never holds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + bound();
    loop {
        if condition()? {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{what}: not within {:?}", bound());
        }
        thread::sleep(POLL);
    }
}

/// The lines that a process has printed so far; `true` when there will be no more.
type Printed = (Vec<String>, bool);

/// Lines of one output stream, read by a thread of its own.
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

    /// Everything printed so far.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        self.lock().0.clone()
    }

    /// Waits until the stream has ended, and returns all of it.
    ///
    /// # Errors
    ///
    /// When it does not end within [`bound`].
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

    /// The first line from number `from` on for which `pick` finds something, with its number.
    /// `None` when the stream ends or `deadline` passes before.
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

/// A running process, killed when this is dropped or the test's thread dies.
pub struct Running {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    /// What it prints.
    pub stdout: Lines,
    /// What it complains of.
    pub stderr: Lines,
}

impl Running {
    /// Starts a process with all its streams connected to the test.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        leftovers::mark(command);
        die_with_parent(command, libc::SIGKILL);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn(command).with_context(|| format!("{name} cannot be started"))?;
        let stdout = child.stdout.take().map(Lines::read_from).unwrap_or_default();
        let stderr = child.stderr.take().map(Lines::read_from).unwrap_or_default();
        Ok(Self { name, stdin: child.stdin.take(), stdout, stderr, child })
    }

    /// Its PID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes a line to its stdin.
    ///
    /// # Errors
    ///
    /// When it no longer reads.
    pub fn say(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("stdin is closed")?;
        writeln!(stdin, "{line}").with_context(|| format!("{} no longer reads", self.name))
    }

    /// Closes its stdin.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: the child has not been waited for, so its PID is still its own.
        unsafe { libc::kill(self.child.id().cast_signed(), signal) };
    }

    /// Its exit status once it has ended.
    ///
    /// # Errors
    ///
    /// When it does not end within [`bound`].
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.stdin = None;
        let name = self.name.clone();
        eventually(&format!("{name} ends"), || Ok(self.child.try_wait()?.is_some()))?;
        Ok(self.child.wait()?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when the process has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running process whose stdout goes where the test says; killed when this is dropped.
pub struct Silent(Child);

impl Silent {
    /// Starts it, with stderr going to a file.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start(command: &mut Command, stdout: Stdio, stderr: &Path) -> Result<Self> {
        leftovers::mark(command);
        die_with_parent(command, libc::SIGKILL);
        command.stdin(Stdio::null()).stdout(stdout).stderr(File::create(stderr)?);
        Ok(Self(command.spawn()?))
    }

    /// Its PID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Makes sure that it is still at work.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn ensure_running(&mut self) -> Result<()> {
        match self.0.try_wait()? {
            Some(status) => bail!("the process has ended: {status}"),
            None => Ok(()),
        }
    }

    /// Its exit status once it has ended by itself.
    ///
    /// # Errors
    ///
    /// When it does not end within [`bound`].
    pub fn wait(&mut self) -> Result<ExitStatus> {
        eventually("the process ends", || Ok(self.0.try_wait()?.is_some()))?;
        Ok(self.0.wait()?)
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // Both fail only when the process has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes the kernel send `signal` to the process when the thread that starts it ends.
pub(crate) fn die_with_parent(command: &mut Command, signal: i32) {
    // SAFETY: prctl is async-signal-safe and touches no memory of this process.
    unsafe {
        command.pre_exec(move || match libc::prctl(libc::PR_SET_PDEATHSIG, signal) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
}

/// Starts a program that may just have been written. Another test's thread that forked meanwhile holds
/// the file open for writing until its own exec: that is waited for.
fn spawn(command: &mut Command) -> io::Result<Child> {
    let deadline = Instant::now() + bound();
    loop {
        match command.spawn() {
            Err(error) if is_busy(&error) && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            outcome => return outcome,
        }
    }
}

fn is_busy(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ExecutableFileBusy
}
