//! The process: it is forked, tells its PID, waits, and then executes the program.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitStatus};
use std::thread;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::oneshot;

use super::line::CommandLine;
use super::user::User;

/// Where service managers hear of the tracer: not of what it runs.
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// A process that waits to execute its program.
pub(super) struct Process {
    pid: u32,
    target: Target,
    /// A byte lets it go on; its end makes it give up.
    go: OwnedFd,
    /// Whether it has executed the program.
    executed: oneshot::Receiver<io::Result<()>>,
    ended: oneshot::Receiver<io::Result<ExitStatus>>,
}

/// Where signals are sent: this very process, whoever has its PID later.
pub(super) struct Target(OwnedFd);

impl Target {
    pub(super) fn send(&self, signal: Signal) {
        // It fails only when the process has just ended.
        let _ = pidfd_send_signal(&self.0, signal);
    }
}

impl Process {
    /// Forks it. `signals` is the mask that the program is to have.
    pub(super) fn hold(
        line: &CommandLine,
        user: Option<User>,
        signals: libc::sigset_t,
    ) -> io::Result<Self> {
        let (wait, go) = io::pipe()?;
        let (read_pid, tell_pid) = io::pipe()?;
        let mut command = Command::new(&line.program);
        command.args(&line.arguments).env_remove(NOTIFY_SOCKET);
        if let Some(user) = &user {
            command.envs(user.environment());
        }
        let parents_end = go.as_raw_fd();
        let in_child = move || {
            // SAFETY: the descriptor is open, and in this process only this copy of it is closed,
            // which nothing uses. Were it open, the end of the tracer would not be noticed.
            unsafe { libc::close(parents_end) };
            let pid = rustix::process::getpid().as_raw_nonzero().get();
            rustix::io::write(&tell_pid, &pid.to_ne_bytes())?;
            let mut byte = [0];
            if rustix::io::retry_on_intr(|| rustix::io::read(&wait, &mut byte))? == 0 {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if let Some(user) = &user {
                user.become_it()?;
            }
            // SAFETY: the set is a copy of one that the kernel filled.
            match unsafe {
                libc::sigprocmask(libc::SIG_SETMASK, &raw const signals, std::ptr::null_mut())
            } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        };
        // SAFETY: between fork and exec the function makes system calls only, and allocates
        // nothing.
        unsafe { command.pre_exec(in_child) };
        let (tell_executed, executed) = oneshot::channel();
        let (tell_ended, ended) = oneshot::channel();
        // `spawn` returns once the program is executed, so it has a thread of its own.
        let body = move || match command.spawn() {
            Ok(mut child) => {
                drop(command);
                // Whoever does not listen any more has given up.
                let _ = tell_executed.send(Ok(()));
                let _ = tell_ended.send(child.wait());
            }
            Err(error) => {
                let _ = tell_executed.send(Err(error));
            }
        };
        thread::Builder::new().name("command".to_owned()).spawn(body)?;
        let mut bytes = [0; 4];
        let told = rustix::io::retry_on_intr(|| rustix::io::read(&read_pid, &mut bytes))?;
        let pid = Some(i32::from_ne_bytes(bytes)).filter(|_| told == bytes.len());
        let (Some(pid), Some(handle)) =
            (pid.and_then(|pid| u32::try_from(pid).ok()), pid.and_then(Pid::from_raw))
        else {
            return Err(io::Error::other("it has not told its PID"));
        };
        let target = Target(pidfd_open(handle, PidfdFlags::empty())?);
        Ok(Self { pid, target, go: go.into(), executed, ended })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Lets it execute the program.
    pub(super) async fn release(
        self,
    ) -> io::Result<(Target, oneshot::Receiver<io::Result<ExitStatus>>)> {
        let Self { target, go, executed, ended, .. } = self;
        // It may have been killed while it waited: then its status tells.
        let _ = rustix::io::write(&go, b"!");
        executed.await.unwrap_or_else(|_| Err(io::Error::other("its thread has ended")))?;
        Ok((target, ended))
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::time::Duration;

    use super::*;

    fn mask() -> libc::sigset_t {
        let mut set = std::mem::MaybeUninit::uninit();
        // SAFETY: the function fills the set.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            set.assume_init()
        }
    }

    fn shell(script: &str) -> Process {
        let arguments = ["-c", script].map(OsString::from).to_vec();
        Process::hold(&CommandLine { program: "sh".into(), arguments }, None, mask()).unwrap()
    }

    #[tokio::test]
    async fn nothing_is_executed_before_it_is_released() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("executed");
        let held = shell(&format!("echo $$ > {}; exit 7", file.display()));
        let pid = held.pid();
        thread::sleep(Duration::from_millis(50));
        assert!(!file.exists());
        let (_, ended) = held.release().await.unwrap();
        assert_eq!(ended.await.unwrap().unwrap().code(), Some(7));
        assert_eq!(std::fs::read_to_string(file).unwrap().trim(), pid.to_string());
    }

    #[tokio::test]
    async fn it_ends_with_whoever_holds_it() {
        let held = shell("exit 0");
        let (target, pid) = (Target(held.target.0.try_clone().unwrap()), held.pid());
        drop(held);
        let path = format!("/proc/{pid}/stat");
        for _ in 0..500 {
            if !std::fs::exists(&path).unwrap() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!std::fs::exists(path).unwrap());
        target.send(Signal::TERM);
    }

    #[tokio::test]
    async fn signals_reach_it_and_a_missing_program_is_an_error() {
        let (target, ended) = shell("kill -STOP $$; sleep 60").release().await.unwrap();
        target.send(Signal::KILL);
        let status = ended.await.unwrap().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        let line = CommandLine { program: "/nonexistent/program".into(), arguments: Vec::new() };
        let missing = Process::hold(&line, None, mask()).unwrap().release().await;
        assert_eq!(missing.err().unwrap().kind(), io::ErrorKind::NotFound);
    }
}
