//! What Kubernetes calls the processes of this node: namespace, pod, container, labels.
//!
//! A process's cgroup tells its container's id and its pod's UID, [`crate::process::container`]. Their
//! names are with the API server, or with the node's kubelet. [`Pods`] asks one of them, on a thread of
//! its own, and keeps what it says of this node's pods; the event loop looks a process up there when it
//! meets it, and once more when the list has changed: a pod's containers are known to the kubelet
//! before they are to those who ask.
//!
//! Nothing here is needed for tracing. When nobody answers, that is said once, and asked again later.

mod api;
mod directory;
mod kubelet;
mod settings;
mod watch;

use directory::Directory;
pub use settings::{Asked, Kubernetes, LabelKey, NodeName};
pub use watch::Pods;
