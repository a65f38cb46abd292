//! What Kubernetes calls the processes of this node, namespace, pod, container, labels, and the service
//! or pod that they connect to.
//!
//! A process's cgroup tells its container's id and its pod's UID, [`crate::sources::procfs::container`]. Their
//! names are with the API server, or with the node's kubelet. [`Pods`] asks one of them, on a thread of
//! its own, and keeps what it says of this node's pods; the event loop looks a process up there when it
//! meets it, and once more when the list has changed: a pod's containers are known to the kubelet
//! before they are to those who ask.
//!
//! The API server also tells whose an address is that a process connects to.
//!
//! Nothing here is needed for tracing. When nobody answers, that is said once, and asked again later.

mod api;
mod destinations;
mod directory;
mod kubelet;
mod services;
mod settings;
mod watch;

use directory::Directory;
pub use settings::{Asked, Kubernetes, LabelKey, NodeName};
pub use watch::Pods;
