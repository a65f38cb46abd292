//! Values that options can take by name, and what they mean to the rooms.

use clap::ValueEnum;

use crate::outputs::Format;
use crate::outputs::flamegraph::By;
use crate::sources::kernel::hooks::Flavour;
use crate::sources::kubernetes::Asked;

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
