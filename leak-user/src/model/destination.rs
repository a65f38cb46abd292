//! What Kubernetes calls the address of a server.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whoever has an address, as Kubernetes calls it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Destination {
    /// What it is.
    pub kind: DestinationKind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What can have an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DestinationKind {
    /// A service: its cluster, external or load balancer's address.
    Service,
    /// A pod.
    Pod,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            DestinationKind::Service => "service",
            DestinationKind::Pod => "pod",
        };
        write!(f, "{kind} {}/{}", self.namespace, self.name)
    }
}
