//! Kubernetes as a source: names the pods of the traced processes, and the services and pods that
//! they connect to.
//!
//! A process's cgroup has its container's id and its pod's UID, see
//! [`crate::sources::procfs::container`]. The API server or the node's kubelet has their names.
//! [`Pods`] asks one of them on a background thread and caches this node's pods. The event loop
//! looks a process up when it first sees it and again when the list has changed: a new container is
//! visible to the kubelet before it is visible to its clients.
//!
//! Only the API server can name the addresses that processes connect to.
//!
//! Tracing works without any of this. A failure is logged once, and the server is asked again
//! later.

mod answers;
mod api;
mod destinations;
mod directory;
mod error;
mod kubelet;
mod pods;
mod services;
mod settings;

pub use pods::Pods;
pub(crate) use settings::kubelet_url;
pub use settings::{Asked, Kubernetes, LabelKey, NodeName};
