//! Child processes that never outlive us, and the signals that end a command early.

use std::{
    env, io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

/// How often a child is asked whether it has ended.
const POLL: Duration = Duration::from_millis(50);

/// How long a child may take to end after it was asked to.
const PATIENCE: Duration = Duration::from_secs(5);

/// Set by SIGINT and SIGTERM.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// Makes SIGINT and SIGTERM end the waits below, so that every guard gets to clean up.
pub(crate) fn stop_on_signals() -> Result<()> {
    extern "C" fn stop(_: libc::c_int) {
        STOPPED.store(true, Ordering::Relaxed);
    }
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler does nothing but store to an atomic, which is safe in any context.
        let previous = unsafe { libc::signal(signal, stop as *const () as libc::sighandler_t) };
        ensure!(previous != libc::SIG_ERR, "Cannot catch signals: {}", io::Error::last_os_error());
    }
    Ok(())
}

/// Sleeps, or fails as soon as the user wants to stop.
pub(crate) fn pause(duration: Duration) -> Result<()> {
    let end = Instant::now() + duration;
    while Instant::now() < end {
        ensure_not_stopped()?;
        thread::sleep(POLL.min(duration));
    }
    ensure_not_stopped()
}

/// Fails when the user wants to stop.
pub(crate) fn ensure_not_stopped() -> Result<()> {
    ensure!(!STOPPED.load(Ordering::Relaxed), "Interrupted.");
    Ok(())
}

/// Whether this process may do everything.
pub(crate) fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Where a program lies on the `PATH`.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let paths = env::var_os("PATH")?;
    env::split_paths(&paths)
        // A plain user's PATH often lacks these, though their programs can be asked for.
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

/// Runs a program to its end and fails when it does.
pub(crate) fn check(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("Cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?} failed: {status}.");
    Ok(())
}

/// Runs a program to its end and returns what it printed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("Cannot run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed: {}. {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A child that is ended when this value goes, and by the kernel should we be killed before.
pub(crate) struct Guarded {
    child: Child,
    name: String,
    /// The signal that makes it end in good order.
    farewell: libc::c_int,
}

impl Guarded {
    /// Starts a child in a process group of its own, out of reach of the terminal's Ctrl-C: it
    /// has to outlive whatever still watches it.
    pub(crate) fn spawn(command: &mut Command, farewell: libc::c_int) -> Result<Self> {
        let name = Path::new(command.get_program())
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        // SAFETY: the closure calls one async-signal-safe function and touches no memory.
        unsafe {
            command.process_group(0).pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let child = command.spawn().with_context(|| format!("Cannot run {command:?}"))?;
        Ok(Self { child, name, farewell })
    }

    /// The process itself.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its process identifier.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails when the child has ended, though it was to stay.
    pub(crate) fn ensure_running(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} ended too early: {status}.", self.name),
            None => Ok(()),
        }
    }

    /// Asks the child to end.
    pub(crate) fn dismiss(&self) {
        let pid = self.child.id().cast_signed();
        // SAFETY: kill takes no pointers, and an unreaped child's identifier is nobody else's.
        unsafe { libc::kill(pid, self.farewell) };
    }

    /// Waits for the child to end by itself, at most until `limit`. Once the user wants to stop,
    /// the child is asked to end, and gets the time to say its last words.
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let mut end = Instant::now() + limit;
        let mut dismissed = false;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if STOPPED.load(Ordering::Relaxed) && !dismissed {
                dismissed = true;
                end = end.min(Instant::now() + PATIENCE);
                self.dismiss();
            }
            ensure!(Instant::now() < end, "{} does not end.", self.name);
            thread::sleep(POLL);
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        self.dismiss();
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(POLL);
        }
        // Both fail only when it has ended meanwhile.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
