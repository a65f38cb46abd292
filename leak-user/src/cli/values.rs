//! Values that options can take by name, and what they mean to the rooms.

use clap::ValueEnum;

use crate::outputs::Format;
use crate::outputs::flamegraph::By;
use crate::outputs::text::Frames;
use crate::sources::kernel::hooks::Flavour;
use crate::sources::kubernetes::Asked;

/// The highest PID that the kernel can count to.
const MAX_PID: u32 = i32::MAX as u32;

/// Format of the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people: a live table, findings as they arise, and a report at the end.
    #[default]
    Text,
    /// One JSON document at the end.
    Json,
    /// One JSON event per line, live; the last line is the report.
    Ndjson,
}

impl From<Output> for Format {
    fn from(output: Output) -> Self {
        match output {
            Output::Text => Self::Text,
            Output::Json => Self::Json,
            Output::Ndjson => Self::Ndjson,
        }
    }
}

/// Which of a connection's stacks is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum FlamegraphBy {
    /// The one that sent the last request: it names who leaks.
    #[default]
    LastUsedBy,
    /// The one that called `connect()`.
    OpenedBy,
}

impl From<FlamegraphBy> for By {
    fn from(by: FlamegraphBy) -> Self {
        match by {
            FlamegraphBy::LastUsedBy => Self::LastUsedBy,
            FlamegraphBy::OpenedBy => Self::OpenedBy,
        }
    }
}

/// How much of stacks the text shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum FramesShown {
    /// The application's calls; those of drivers and runtimes are counted.
    #[default]
    Application,
    /// All calls, with the whole paths of their files.
    All,
}

impl From<FramesShown> for Frames {
    fn from(shown: FramesShown) -> Self {
        match shown {
            FramesShown::Application => Self::Application,
            FramesShown::All => Self::All,
        }
    }
}

/// A kind of hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Hooks {
    /// BTF tracepoints.
    A,
    /// fexit programs, at the return of a function.
    B,
    /// kprobes and kretprobes.
    C,
}

impl From<Hooks> for Flavour {
    fn from(hooks: Hooks) -> Self {
        match hooks {
            Hooks::A => Self::BtfTracepoint,
            Hooks::B => Self::Fexit,
            Hooks::C => Self::Kprobe,
        }
    }
}

/// Which server to ask for the names of pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum KubernetesServer {
    /// The API server when this runs in a pod, else none.
    #[default]
    Auto,
    /// The API server, by the kubeconfig or this pod's service account.
    Api,
    /// This node's kubelet.
    Kubelet,
    /// None.
    Off,
}

impl From<KubernetesServer> for Asked {
    fn from(server: KubernetesServer) -> Self {
        match server {
            KubernetesServer::Auto => Self::Auto,
            KubernetesServer::Api => Self::Api,
            KubernetesServer::Kubelet => Self::Kubelet,
            KubernetesServer::Off => Self::Off,
        }
    }
}

/// A PID.
pub(super) fn pid(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(pid) if (1..=MAX_PID).contains(&pid) => Ok(pid),
        Ok(_) => Err(format!("a PID is between 1 and {MAX_PID}")),
        Err(_) if text.chars().all(|c| c.is_ascii_digit() || c == '-') => {
            Err(format!("a PID is between 1 and {MAX_PID}"))
        }
        Err(_) => Err(format!("a PID is a number; for a name use --comm {text}")),
    }
}

/// A server's port.
pub(super) fn port(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ if text.is_empty() => Err("a port is missing before or after a comma".into()),
        _ => Err("a port is a number between 1 and 65535".into()),
    }
}

/// How quiet to be: a switch, or how often it is given.
pub(super) fn quietness(text: &str) -> Result<u8, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" | "y" | "t" => Ok(1),
        "0" | "false" | "no" | "off" | "n" | "f" => Ok(0),
        "2" => Ok(2),
        _ => Err("it must be 0, 1 or 2".into()),
    }
}

/// A size in MiB.
pub(super) fn power_of_two(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(mib) if mib.is_power_of_two() && mib <= 1024 => Ok(mib),
        _ => Err("it must be 1, 2, 4, 8 … or 1024".into()),
    }
}
