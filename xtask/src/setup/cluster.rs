//! What the container image, and a cluster to try it on, take.

use super::{Need, Requirement, succeeds};
use crate::process::which;

pub(super) const REQUIREMENTS: &[Requirement] = &[
    Requirement {
        need: Need::Image,
        present: || which("buildah").is_some(),
        packages: &["buildah"],
        elsewhere: "Install buildah.",
    },
    Requirement {
        need: Need::Cluster,
        present: || ["go", "etcd", "dpkg-source"].iter().all(|name| which(name).is_some()),
        packages: &["golang-go", "etcd-server", "dpkg-dev"],
        elsewhere: "Install Go, etcd and dpkg-source.",
    },
    Requirement {
        need: Need::Cluster,
        present: || succeeds("kubectl", &["create", "token", "--help"]),
        packages: &["kubernetes-client"],
        elsewhere: "Install kubectl 1.24 or later.",
    },
];
