//! Child processes that never outlive us, and the signals that end a command early.

use std::{
    io,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, ExitStatus},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
pub use rustix::process::Signal;
use rustix::process::{
    Pid, geteuid, kill_process, kill_process_group, set_parent_process_death_signal,
};
use signal_hook::{consts, flag};

/// Interval between two checks whether a child has ended.
const POLL: Duration = Duration::from_millis(50);

/// How long a child may take to end after it was asked to.
const GRACE_PERIOD: Duration = Duration::from_secs(5);

/// How long a program that is still open for writing is waited for.
const BUSY_LIMIT: Duration = Duration::from_secs(25);

/// Set by SIGINT and SIGTERM.
static STOPPED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Makes SIGINT and SIGTERM end the waits below, so that every guard gets to clean up.
///
/// # Errors
///
/// When the signals cannot be caught.
pub fn stop_on_signals() -> Result<()> {
    for signal in [consts::SIGINT, consts::SIGTERM] {
        flag::register(signal, STOPPED.clone()).context("Cannot catch signals")?;
    }
    Ok(())
}

/// Sleeps, or fails as soon as the user wants to stop.
///
/// # Errors
///
/// When the user has interrupted the command.
pub fn pause(duration: Duration) -> Result<()> {
    let end = Instant::now() + duration;
    while Instant::now() < end {
        ensure_not_stopped()?;
        thread::sleep(POLL.min(duration));
    }
    ensure_not_stopped()
}

/// Fails when the user wants to stop.
///
/// # Errors
///
/// When the user has interrupted the command.
pub fn ensure_not_stopped() -> Result<()> {
    ensure!(!STOPPED.load(Ordering::Relaxed), "Interrupted.");
    Ok(())
}

/// Whether this process runs as root.
#[must_use]
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// A child process that ends when this value is dropped, and when the thread that started it ends.
pub struct Guarded {
    child: Child,
    name: String,
    /// The signal that makes it end in good order.
    farewell: Signal,
}

impl Guarded {
    /// Starts a child in a process group of its own, out of reach of the terminal's Ctrl-C: it
    /// has to outlive whatever still observes it. `farewell` is the signal that ends it.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn spawn(command: &mut Command, farewell: Signal) -> Result<Self> {
        let name = Path::new(command.get_program())
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        // SAFETY: the closure makes one system call and touches no memory of this process.
        unsafe {
            command.process_group(0).pre_exec(move || {
                set_parent_process_death_signal(Some(farewell))?;
                Ok(())
            });
        }
        let child = spawn(command).with_context(|| format!("Cannot run {command:?}"))?;
        Ok(Self { child, name, farewell })
    }

    /// The process itself.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its process identifier.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails when the child has ended, though it was to stay.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn ensure_running(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} ended too early: {status}.", self.name),
            None => Ok(()),
        }
    }

    /// Asks the child to end.
    pub fn dismiss(&self) {
        self.signal(self.farewell);
    }

    /// Sends the child a signal.
    pub fn signal(&self, signal: Signal) {
        // Fails only when it has ended: it has not been waited for, so that its PID is its own.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Kills the child and every process of its group.
    pub fn kill_group(&self) {
        // Fails only when all have ended.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
    }

    /// Waits for the child to end by itself, at most until `limit`. Once the user wants to stop,
    /// the child is asked to end, and gets the time to write its last lines.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let mut end = Instant::now() + limit;
        let mut dismissed = false;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if STOPPED.load(Ordering::Relaxed) && !dismissed {
                dismissed = true;
                end = end.min(Instant::now() + GRACE_PERIOD);
                self.dismiss();
            }
            ensure!(Instant::now() < end, "{} does not end within {limit:?}.", self.name);
            thread::sleep(POLL);
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        if self.farewell != Signal::KILL {
            self.dismiss();
            let end = Instant::now() + GRACE_PERIOD;
            while Instant::now() < end {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                thread::sleep(POLL);
            }
        }
        // Both fail only when it has ended meanwhile.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a program that may just have been written. A thread that forked meanwhile holds the file
/// open for writing until its own exec, and the kernel refuses to run it until then.
fn spawn(command: &mut Command) -> io::Result<Child> {
    let deadline = Instant::now() + BUSY_LIMIT;
    loop {
        match command.spawn() {
            Err(error)
                if error.kind() == io::ErrorKind::ExecutableFileBusy
                    && Instant::now() < deadline =>
            {
                thread::sleep(Duration::from_millis(5));
            }
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_ends_with_its_guard() {
        let child = Guarded::spawn(Command::new("sleep").arg("1000"), Signal::TERM).unwrap();
        let pid = child.pid();
        drop(child);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn a_child_that_ended_early_is_reported() {
        let mut child = Guarded::spawn(&mut Command::new("true"), Signal::KILL).unwrap();
        assert!(child.wait(Duration::from_secs(10)).unwrap().success());
        assert!(child.ensure_running().is_err());
    }
}
