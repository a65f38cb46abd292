//! Lists and watches this node's pods at the API server.
//!
//! The field selector `spec.nodeName` is cheap: the server keeps an index for it. The token and the
//! CA certificate are read again once a minute: both are replaced while a pod runs.

use std::convert::Infallible;
use std::pin::pin;

use futures_util::TryStreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Config};

use crate::sources::kubernetes::answers::Answers;
use crate::sources::kubernetes::directory::Directory;
use crate::sources::kubernetes::error::AskError;
use crate::sources::kubernetes::settings::{Kubernetes, NodeName};

/// Follows changes until something fails.
pub(super) async fn ask(
    settings: &Kubernetes,
    answers: &mut Answers<'_>,
) -> Result<Infallible, AskError> {
    let host = || NodeName::of_host().map_err(AskError::NodeName);
    let node = settings.node_name.clone().map_or_else(host, Ok)?;
    let config = Config::infer().await.map_err(|error| AskError::Credentials(error.into()))?;
    let pods: Api<Pod> = Api::all(Client::try_from(config)?);
    let of_node = watcher::Config::default().fields(&format!("spec.nodeName={}", node.as_str()));
    let mut events = pin!(watcher(pods, of_node));
    // A new list replaces the old one only once it is complete.
    let mut listed = Directory::default();
    while let Some(event) = events.try_next().await? {
        match event {
            Event::Init => listed = Directory::default(),
            Event::InitApply(pod) => listed.put(&pod, &settings.pod_label),
            Event::InitDone => answers.replace(std::mem::take(&mut listed)),
            Event::Apply(pod) => answers.change(|known| known.put(&pod, &settings.pod_label)),
            Event::Delete(pod) => {
                let uid = pod.metadata.uid.unwrap_or_default();
                answers.change(|known| known.remove(&uid));
            }
        }
    }
    Err(AskError::Ended)
}
