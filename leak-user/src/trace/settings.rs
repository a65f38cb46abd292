//! What to trace, and how.

use std::time::Duration;

use leak_stacks::DriverFrames;

use crate::engine::detect::Thresholds;
use crate::engine::findings::Suppression;
use crate::outputs::OutputSettings;
use crate::sources::kernel::TracerSettings;
use crate::sources::kubernetes::Kubernetes;
use crate::sources::postgres::Dsn;
use crate::sources::procfs::selection::Selection;
use crate::trace::command::CommandLine;

/// What to trace, and how.
#[derive(Clone, Debug)]
pub struct TraceSettings {
    /// Which processes and ports, and with which resources.
    pub kernel: TracerSettings,
    /// A command to execute and trace, with its children, instead of processes that run already.
    pub command: Option<CommandLine>,
    /// Which processes to trace.
    pub selection: Selection,
    /// From when on silence counts, and how often connections are judged.
    pub thresholds: Thresholds,
    /// Findings that are not told.
    pub suppress: Vec<Suppression>,
    /// When the trace ends by itself.
    pub duration: Option<Duration>,
    /// Code that is never the culprit.
    pub driver_frames: Vec<DriverFrames>,
    /// Look each interval for who waits for a connection.
    pub waiting: bool,
    /// PostgreSQL servers that are asked for their sessions.
    pub servers: Vec<Dsn>,
    /// Who is asked for the names of pods.
    pub kubernetes: Kubernetes,
    /// What is written, drawn and served.
    pub outputs: OutputSettings,
}

impl TraceSettings {
    /// The same with the process of the command, and its children, as what to trace.
    pub(super) fn of_command(&self, pid: Option<u32>) -> Self {
        let mut settings = self.clone();
        if let Some(pid) = pid {
            settings.kernel.pids = Some(vec![pid]);
            settings.kernel.children = true;
        }
        settings
    }
}
