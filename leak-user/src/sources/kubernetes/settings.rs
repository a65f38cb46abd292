//! Which server to ask for the names of pods, and for which pods.

use std::env;
use std::path::Path;
use std::str::FromStr;

use http::Uri;

/// The token with which a pod identifies itself to the API server.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// The environment variable with the address of the API server.
const SERVICE_HOST: &str = "KUBERNETES_SERVICE_HOST";
/// Longest name of a node, and longest prefix of a label's key: a DNS subdomain.
const MAX_SUBDOMAIN: usize = 253;
/// Longest name of a label without the prefix.
const MAX_LABEL: usize = 63;

/// Which server to ask for the names of pods, and for which pods.
#[derive(Clone, Debug)]
pub struct Kubernetes {
    /// The server.
    pub asked: Asked,
    /// This node's name; `None` for the host's.
    pub node_name: Option<NodeName>,
    /// Labels of pods to report.
    pub pod_label: Vec<LabelKey>,
    /// The kubelet's address.
    pub kubelet_url: Uri,
    /// Accept any certificate from the kubelet.
    pub kubelet_insecure_tls: bool,
}

/// Which server to ask for the names of pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asked {
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

impl Asked {
    /// Resolves `auto`.
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

/// The name of a node: checked, so that it cannot change the meaning of a selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName(String);

impl NodeName {
    /// The host's name, if it can be a node's name.
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
            Err("a node's name has only lower-case letters, digits, `-` and `.`".into())
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
            Err("a label key looks like `app` or `app.kubernetes.io/name`".into())
        }
    }
}

/// Whether it is a DNS subdomain as Kubernetes defines it, RFC 1123.
fn is_subdomain(text: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    (1..=MAX_SUBDOMAIN).contains(&text.len()) && text.bytes().all(allowed)
}

/// Parses the address of a kubelet.
pub(crate) fn kubelet_url(text: &str) -> Result<Uri, String> {
    let uri: Uri = text.parse().map_err(|error| format!("{error}"))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("https" | "http"), Some(_)) => Ok(uri),
        _ => Err("it must look like https://10.0.0.7:10250".into()),
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
