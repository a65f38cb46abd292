//! What to trace, and how.

use std::time::Duration;

use leak_stacks::DriverFrames;

use crate::engine::detect::Thresholds;
use crate::outputs::OutputSettings;
use crate::sources::kernel::TracerSettings;
use crate::sources::kubernetes::Kubernetes;
use crate::sources::postgres::Dsn;
use crate::sources::procfs::name::CommPattern;

/// What to trace, and how.
#[derive(Clone, Debug)]
pub struct TraceSettings {
    /// Which processes and ports, and with which resources.
    pub kernel: TracerSettings,
    /// Names of processes to trace; none for all.
    pub comm: Vec<CommPattern>,
    /// From when on silence counts, and how often connections are judged.
    pub thresholds: Thresholds,
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
