//! Why a trace cannot begin, or go on.

use std::io;

use tokio::task::JoinError;

use crate::outputs::OutputError;
use crate::sources::kernel::KernelError;
use crate::sources::procfs::ProcessError;
use crate::trace::command::CommandError;

/// Why a trace cannot begin, or go on.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The kernel programs cannot run here.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// An output cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// A process to trace does not exist.
    #[error("process {pid} cannot be traced: {source}")]
    NoProcess {
        /// Its PID.
        pid: u32,
        /// What procfs says.
        source: ProcessError,
    },
    /// The children of processes to trace cannot be found.
    #[error("children cannot be listed")]
    Children(#[source] ProcessError),
    /// The command to trace does not run.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The system refuses something that tracing needs.
    #[error("{what}")]
    System {
        /// What it is, as a clause.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The thread that lists connections has died.
    #[error(transparent)]
    Inventory(#[from] JoinError),
    /// The thread that resolves stacks has died.
    #[error("the resolver's thread has died")]
    Resolver,
    /// The user did not wait for the report.
    #[error("interrupted a second time, so there is no report")]
    Interrupted,
}

impl TraceError {
    /// For [`Result::map_err`].
    pub(super) fn system(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}
