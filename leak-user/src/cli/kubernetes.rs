//! Options for the names of pods.

use clap::Args;
use clap::builder::BoolishValueParser;
use http::Uri;

use crate::cli::values::KubernetesServer;
use crate::sources::kubernetes::{LabelKey, NodeName, kubelet_url};

/// Options for the names of pods.
#[derive(Clone, Debug, Args)]
pub struct KubernetesArgs {
    /// Which server to ask for the pods of the traced processes.
    #[arg(long = "kubernetes", value_name = "SERVER", value_enum, default_value_t)]
    #[arg(env = "PGSOCKTRACE_KUBERNETES")]
    pub asked: KubernetesServer,
    /// This node's name, as `kubectl get nodes` shows it [default: the host's name].
    #[arg(long, value_name = "NAME", env = "PGSOCKTRACE_NODE_NAME")]
    pub node_name: Option<NodeName>,
    /// Report this label of pods, for example `app.kubernetes.io/name` (repeatable).
    #[arg(long, value_name = "KEY", env = "PGSOCKTRACE_POD_LABEL", value_delimiter = ',')]
    pub pod_label: Vec<LabelKey>,
    /// The kubelet's address; use `http` for its read-only port.
    #[arg(long, value_name = "URL", default_value = "https://127.0.0.1:10250")]
    #[arg(env = "PGSOCKTRACE_KUBELET_URL", value_parser = kubelet_url)]
    pub kubelet_url: Uri,
    /// Accept any certificate from the kubelet; many kubelets use a self-signed one.
    ///
    /// Anyone who can pose as the kubelet then receives this pod's token, so keep the URL on this
    /// node. Without this option the certificate must be signed by the cluster's CA.
    #[arg(long, env = "PGSOCKTRACE_KUBELET_INSECURE_TLS", value_parser = BoolishValueParser::new())]
    pub kubelet_insecure_tls: bool,
}
