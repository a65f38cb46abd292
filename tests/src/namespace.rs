//! Network namespaces for single tests. They have no name, so none can be left behind: the kernel
//! removes them with their last process and socket.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::{io, thread};

use anyhow::{Context, Result, anyhow, ensure};

/// A network namespace with only a loopback device.
pub struct Namespace {
    handle: File,
}

impl Namespace {
    /// Creates a namespace, brings its loopback up, and runs `inside` there.
    ///
    /// Sockets that `inside` opens stay in the namespace.
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

    /// The network namespace of a process.
    pub fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/ns/net");
        Ok(Self { handle: File::open(&path).context(path)? })
    }

    /// Runs `inside` in the namespace; sockets that it opens stay there.
    pub fn run<T: Send>(&self, inside: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        apart(|| {
            // SAFETY: setns changes only the network namespace of this thread, which ends here.
            let entered = unsafe { libc::setns(self.handle.as_raw_fd(), libc::CLONE_NEWNET) };
            ensure!(entered == 0, "setns: {}", io::Error::last_os_error());
            inside()
        })
    }

    /// A path to the namespace, valid while this process and this value live.
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

/// Brings up the loopback of the calling thread's network namespace.
pub fn raise_loopback() -> Result<()> {
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().context("ip")?;
    ensure!(up.success(), "`ip link set lo up` failed");
    Ok(())
}

/// Runs `body` on a new thread.
fn apart<T: Send>(body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| scope.spawn(body).join())
        .map_err(|_| anyhow!("the namespace's thread panicked"))?
}
