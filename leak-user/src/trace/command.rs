//! A command that is traced from its first connection on.
//!
//! Its process exists before the hooks are attached, and waits: what it executes begins only once
//! it is traced.

mod line;
mod process;
mod signals;
mod user;

use std::ffi::OsString;
use std::io;
use std::process::ExitStatus;

use tokio::sync::oneshot;

pub use line::CommandLine;
use process::Process;
use signals::Signals;
use user::User;

/// Why a command does not run.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Its process cannot be made.
    #[error("a process for the command cannot be made")]
    Process(#[source] io::Error),
    /// It cannot be executed.
    #[error("{program:?} cannot be executed")]
    Execute {
        /// The program.
        program: OsString,
        /// What the system said.
        source: io::Error,
    },
    /// The user who called sudo is not known.
    #[error("the user who called sudo is not known")]
    User(#[source] io::Error),
    /// Signals cannot be passed on.
    #[error("signals cannot be passed on to the command")]
    Signals(#[source] io::Error),
}

/// A command whose process exists and executes nothing yet. It ends when this is dropped.
pub(super) struct HeldCommand {
    program: OsString,
    process: Process,
    signals: Signals,
}

impl HeldCommand {
    /// Makes the process, for the user who called sudo. From now on signals that end a trace are
    /// for the command. To be called before any thread is started.
    pub(super) fn new(command: &CommandLine) -> Result<Self, CommandError> {
        let user = User::behind_sudo().map_err(CommandError::User)?;
        let signals = Signals::block().map_err(CommandError::Signals)?;
        let process = Process::hold(command, user, signals.before());
        let process = process.map_err(CommandError::Process)?;
        Ok(Self { program: command.program.clone(), process, signals })
    }

    /// PID of the process, now and after it has executed the program.
    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Lets it execute the program.
    pub(super) async fn release(self) -> Result<RunningCommand, CommandError> {
        let Self { program, process, signals } = self;
        let released = process.release().await;
        let (target, ended) =
            released.map_err(|source| CommandError::Execute { program, source })?;
        Ok(RunningCommand { signals, target, ended })
    }
}

/// A command that runs.
pub(super) struct RunningCommand {
    signals: Signals,
    target: process::Target,
    ended: oneshot::Receiver<io::Result<ExitStatus>>,
}

impl RunningCommand {
    /// Passes signals on until the command has ended.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        loop {
            tokio::select! {
                signal = self.signals.next() => {
                    if let Some(signal) = signal? {
                        self.target.send(signal);
                    }
                }
                status = &mut self.ended => {
                    let lost = |_| Err(io::Error::other("the thread that waits for it has ended"));
                    return status.unwrap_or_else(lost);
                }
            }
        }
    }

    /// From now on signals are for the tracer again.
    pub(super) fn stop_passing_signals(&self) {
        self.signals.unblock();
    }
}
