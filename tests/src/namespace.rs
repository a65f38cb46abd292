//! Network namespaces of a test's own. They have no name, so nothing of them can be left behind:
//! the kernel removes them with their last process and socket.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::{io, thread};

use anyhow::{Context, Result, anyhow, ensure};

/// A network namespace with nothing but a loopback.
pub struct Namespace {
    handle: File,
}

impl Namespace {
    /// Makes a namespace, brings its loopback up, and runs `inside` there.
    ///
    /// What `inside` starts listening on stays in the namespace.
    pub fn create<T: Send>(inside: impl FnOnce() -> Result<T> + Send) -> Result<(Self, T)> {
        apart(|| {
            // SAFETY: unshare changes only the network namespace of this thread, which ends here.
            let unshared = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            ensure!(unshared == 0, "unshare: {}", io::Error::last_os_error());
            raise_loopback()?;
            let handle = File::open("/proc/thread-self/ns/net").context("namespace")?;
            Ok((Self { handle }, inside()?))
        })
    }

    /// The namespace that a process is in.
    pub fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/ns/net");
        Ok(Self { handle: File::open(&path).context(path)? })
    }

    /// Runs `inside` there; what that starts listening on stays there.
    pub fn run<T: Send>(&self, inside: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        apart(|| {
            // SAFETY: setns changes only the network namespace of this thread, which ends here.
            let entered = unsafe { libc::setns(self.handle.as_raw_fd(), libc::CLONE_NEWNET) };
            ensure!(entered == 0, "setns: {}", io::Error::last_os_error());
            inside()
        })
    }

    /// A path that leads to it as long as this process lives and this value does.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.handle.as_raw_fd())
    }

    /// Makes `command` run in this namespace.
    pub fn adopt(&self, command: &mut Command) -> Result<()> {
        let handle = self.handle.try_clone()?;
        // SAFETY: setns is async-signal-safe, and the descriptor stays open in the closure.
        unsafe {
            command.pre_exec(move || match libc::setns(handle.as_raw_fd(), libc::CLONE_NEWNET) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        Ok(())
    }
}

/// Brings up the loopback of the network namespace that this thread is in.
pub fn raise_loopback() -> Result<()> {
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().context("ip")?;
    ensure!(up.success(), "`ip link set lo up` failed");
    Ok(())
}

/// Runs `body` on a thread of its own.
fn apart<T: Send>(body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| scope.spawn(body).join())
        .map_err(|_| anyhow!("the namespace's thread panicked"))?
}
