//! What the container image and a cluster to try it on need.

use std::path::Path;

use super::{Need, Requirement};
use support::command::which;

pub(super) const REQUIREMENTS: &[Requirement] = &[
    Requirement {
        need: Need::Image,
        present: || which("buildah").is_some(),
        packages: &["buildah"],
        elsewhere: "Install buildah.",
    },
    Requirement {
        need: Need::Cluster,
        present: || ["go", "dpkg-source"].iter().all(|name| which(name).is_some()),
        packages: &["golang-go", "dpkg-dev"],
        elsewhere: "Install Go and dpkg-source.",
    },
    Requirement {
        need: Need::Cluster,
        present: || ["etcd", "containerd", "ctr"].iter().all(|name| which(name).is_some()),
        packages: &["etcd-server", "containerd"],
        elsewhere: "Install etcd and containerd.",
    },
    Requirement {
        need: Need::Cluster,
        present: || Path::new("/usr/lib/cni/bridge").exists(),
        packages: &["containernetworking-plugins"],
        elsewhere: "Put the plugins of the Container Network Interface into /usr/lib/cni.",
    },
];
