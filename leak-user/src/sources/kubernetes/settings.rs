//! Who is asked for the names of pods, and for which.

use std::env;
use std::path::Path;
use std::str::FromStr;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use http::Uri;

/// Where the kubelet puts what a pod may show to the API server.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// Tells every container where the API server is.
const SERVICE_HOST: &str = "KUBERNETES_SERVICE_HOST";
/// Longest name of a node, and longest prefix of a label's key: a DNS subdomain.
const MAX_SUBDOMAIN: usize = 253;
/// Longest name of a label without the prefix.
const MAX_LABEL: usize = 63;

/// Who is asked for the names of pods, and for which.
#[derive(Clone, Debug, Args)]
pub struct Kubernetes {
    /// Whom to ask which pods the traced processes belong to.
    #[arg(long = "kubernetes", value_name = "WHOM", value_enum, default_value_t)]
    #[arg(env = "PGSOCKTRACE_KUBERNETES")]
    pub asked: Asked,
    /// This node's name, as `kubectl get nodes` shows it; by default the host's name.
    #[arg(long, value_name = "NAME", env = "PGSOCKTRACE_NODE_NAME")]
    pub node_name: Option<NodeName>,
    /// Keep this label of pods, such as `app.kubernetes.io/name` (repeatable).
    #[arg(long, value_name = "KEY", env = "PGSOCKTRACE_POD_LABEL", value_delimiter = ',')]
    pub pod_label: Vec<LabelKey>,
    /// Where the kubelet answers; with `http` its read-only port.
    #[arg(long, value_name = "URL", default_value = "https://127.0.0.1:10250")]
    #[arg(env = "PGSOCKTRACE_KUBELET_URL", value_parser = kubelet_url)]
    pub kubelet_url: Uri,
    /// Take any certificate for the kubelet's: many sign their own.
    ///
    /// Whoever can pose as the kubelet then gets this pod's token, so that the URL had better not
    /// leave the node. Without this, the cluster's authority must have signed it.
    #[arg(long, env = "PGSOCKTRACE_KUBELET_INSECURE_TLS", value_parser = BoolishValueParser::new())]
    pub kubelet_insecure_tls: bool,
}

/// Who is asked for the names of pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Asked {
    /// The API server when this runs in a pod, else nobody.
    #[default]
    Auto,
    /// The API server, as the kubeconfig or this pod's service account says.
    Api,
    /// This node's kubelet.
    Kubelet,
    /// Nobody.
    Off,
}

impl Asked {
    /// The same with `auto` decided.
    pub(super) fn decided(self) -> Self {
        match self {
            Self::Auto
                if env::var_os(SERVICE_HOST).is_some() && Path::new(SERVICE_ACCOUNT).exists() =>
            {
                Self::Api
            }
            Self::Auto => Self::Off,
            other => other,
        }
    }
}

/// The name of a node: what is asked for must not be able to widen the question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName(String);

impl NodeName {
    /// The host's name, where that can be a node's.
    pub(super) fn of_host() -> Result<Self, String> {
        rustix::system::uname().nodename().to_string_lossy().to_lowercase().parse()
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if is_subdomain(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err("a node's name has small letters, digits, `-` and `.` only".into())
        }
    }
}

/// The key of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelKey(String);

impl LabelKey {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LabelKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (prefix, name) = text.rsplit_once('/').map_or((None, text), |(a, b)| (Some(a), b));
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let good = (1..=MAX_LABEL).contains(&name.len())
            && name.bytes().all(allowed)
            && prefix.is_none_or(is_subdomain);
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err("a label's key looks like `app` or `app.kubernetes.io/name`".into())
        }
    }
}

/// RFC 1123, as Kubernetes takes it.
fn is_subdomain(text: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    (1..=MAX_SUBDOMAIN).contains(&text.len()) && text.bytes().all(allowed)
}

fn kubelet_url(text: &str) -> Result<Uri, String> {
    let uri: Uri = text.parse().map_err(|error| format!("{error}"))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("https" | "http"), Some(_)) => Ok(uri),
        _ => Err("it looks like https://10.0.0.7:10250".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_ask_for_more_are_refused() {
        for name in ["node-1.example.org", "a"] {
            assert!(name.parse::<NodeName>().is_ok(), "{name}");
        }
        let long = "a".repeat(254);
        for name in ["", "a,metadata.name=b", "a b", "A", "a=b", &long] {
            assert!(name.parse::<NodeName>().is_err(), "{name}");
        }
    }

    #[test]
    fn keys_of_labels() {
        for key in ["app", "app.kubernetes.io/name", "A_b.c"] {
            assert!(key.parse::<LabelKey>().is_ok(), "{key}");
        }
        for key in ["", "/", "a/", "/a", "a/b/c d", "a=b", "a b"] {
            assert!(key.parse::<LabelKey>().is_err(), "{key}");
        }
    }

    #[test]
    fn urls_of_kubelets() {
        for url in ["https://127.0.0.1:10250", "http://[::1]:10255", "https://node"] {
            assert!(kubelet_url(url).is_ok(), "{url}");
        }
        for url in ["", "127.0.0.1:10250", "/pods", "ftp://a", "https://"] {
            assert!(kubelet_url(url).is_err(), "{url}");
        }
    }
}
