//! Learns when a tracer is attached, and when it is stopping, by systemd's notification protocol.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tempfile::TempDir;

/// Environment variable with the path of the notification socket.
pub(crate) const VARIABLE: &str = "NOTIFY_SOCKET";
/// The lines by which a service says that it is ready, and that it is stopping.
const READY: &str = "READY=1";
const STOPPING: &str = "STOPPING=1";
/// How long to wait between checks that the tracer still runs.
const POLL: Duration = Duration::from_millis(100);

/// The notification socket of a tracer.
pub struct Readiness {
    socket: UnixDatagram,
    _directory: TempDir,
}

impl Readiness {
    /// Makes the tracer that `command` starts notify this socket.
    pub fn of(command: &mut Command) -> Result<Self> {
        // For tracers of other users, too.
        let everybody = |mode| fs::Permissions::from_mode(mode);
        let directory = tempfile::Builder::new().permissions(everybody(0o755)).tempdir()?;
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path)?;
        fs::set_permissions(&path, everybody(0o777))?;
        socket.set_read_timeout(Some(POLL))?;
        command.env(VARIABLE, path);
        Ok(Self { socket, _directory: directory })
    }

    /// Waits until the tracer is attached; fails at `deadline`, or when `check` fails.
    pub fn wait(&self, deadline: Instant, check: impl FnMut() -> Result<()>) -> Result<()> {
        self.wait_for(READY, deadline, check)
    }

    /// Waits until the tracer is stopping; fails at `deadline`, or when `check` fails.
    pub fn wait_for_stop(
        &self,
        deadline: Instant,
        check: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        self.wait_for(STOPPING, deadline, check)
    }

    fn wait_for(
        &self,
        wanted: &str,
        deadline: Instant,
        mut check: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        let mut buffer = [0; 4096];
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(length) => {
                    let told = String::from_utf8_lossy(&buffer[..length]);
                    if told.lines().any(|line| line == wanted) {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => check()?,
                Err(error) => return Err(error.into()),
            }
            if Instant::now() > deadline {
                bail!("the tracer did not say {wanted} in time");
            }
        }
    }
}
