//! The Kubernetes pod that a process belongs to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where a process runs, as Kubernetes calls it.
///
/// It may become known after the process itself: whoever learns it tells the process once more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pod {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The container's name in the pod's specification.
    pub container: String,
    /// Those of the pod's labels that were asked for.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}
