//! Names the addresses that processes connect to: asks the API server which service or pod has
//! them.
//!
//! Services are listed and watched, as kube-proxy does, once there is an address to name. Pods are
//! looked up one by one, by address: of all the cluster's pods only a few matter here.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::ListParams;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Config};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::model::{Destination, DestinationKind};
use crate::sources::kubernetes::error::AskError;
use crate::sources::kubernetes::services::Services;

/// How long a lookup of a pod is cached: pods come and go, and so do their addresses.
const CACHED_FOR: Duration = Duration::from_secs(60);
/// Most pods with the same address to look at: those on the node's own network share one.
const MAX_SHARING: u32 = 8;

/// Addresses to name.
pub(super) type Wanted = BTreeSet<IpAddr>;
/// Addresses and their names.
pub(super) type Names = HashMap<IpAddr, Destination>;

/// Names the wanted addresses until something fails.
pub(super) async fn ask(
    wanted: &mut watch::Receiver<Wanted>,
    names: &watch::Sender<Names>,
    mut answered: impl FnMut(),
) -> Result<Infallible, AskError> {
    let gone = |_| AskError::Ended;
    wanted.wait_for(|wanted| !wanted.is_empty()).await.map_err(gone)?;
    let config = Config::infer().await.map_err(|error| AskError::Credentials(error.into()))?;
    let client = Client::try_from(config)?;
    let mut events = pin!(watcher(Api::<Service>::all(client.clone()), watcher::Config::default()));
    let mut namer = Namer { client, services: Services::default(), pods: HashMap::new() };
    let mut listed = None;
    loop {
        tokio::select! {
            event = events.try_next() => match event?.ok_or(AskError::Ended)? {
                // A new list replaces the old one only once it is complete.
                Event::Init => listed = Some(Services::default()),
                Event::InitApply(service) => listed.get_or_insert_default().put(&service),
                Event::InitDone => {
                    namer.services = listed.take().unwrap_or_default();
                    answered();
                }
                Event::Apply(service) => namer.services.put(&service),
                Event::Delete(service) => {
                    namer.services.remove(&service.metadata.uid.unwrap_or_default());
                }
            },
            changed = wanted.changed() => changed.map_err(gone)?,
            () = sleep_until(Instant::now() + CACHED_FOR) => {}
        }
        if listed.is_none() {
            let wanted = wanted.borrow_and_update().clone();
            let named = namer.name(&wanted).await?;
            names.send_if_modified(|names| {
                let differ = *names != named;
                *names = named;
                differ
            });
        }
    }
}

/// Looks names up.
struct Namer {
    client: Client,
    services: Services,
    /// Lookups of pods, each with its time.
    pods: HashMap<IpAddr, (Instant, Option<Destination>)>,
}

impl Namer {
    async fn name(&mut self, wanted: &Wanted) -> Result<Names, AskError> {
        self.pods.retain(|address, (at, _)| wanted.contains(address) && at.elapsed() < CACHED_FOR);
        let mut names = Names::new();
        for address in wanted {
            let name = match (self.services.find(*address), self.pods.get(address)) {
                (Some(service), _) => Some(service.clone()),
                (None, Some((_, pod))) => pod.clone(),
                (None, None) => {
                    let pod = pod_at(&self.client, *address).await?;
                    self.pods.insert(*address, (Instant::now(), pod.clone()));
                    pod
                }
            };
            names.extend(name.map(|name| (*address, name)));
        }
        Ok(names)
    }
}

/// The pod that alone has this address.
async fn pod_at(client: &Client, address: IpAddr) -> Result<Option<Destination>, AskError> {
    let at = ListParams::default()
        .match_any()
        .fields(&format!("status.podIP={address},status.phase=Running"))
        .limit(MAX_SHARING);
    let pods = Api::<Pod>::all(client.clone()).list(&at).await?;
    Ok(pods.items.iter().find_map(name_of))
}

/// `None` for a pod on its node's network: the address is the node's, shared with other processes.
fn name_of(pod: &Pod) -> Option<Destination> {
    if pod.spec.as_ref()?.host_network == Some(true) {
        return None;
    }
    let kind = DestinationKind::Pod;
    let (namespace, name) = (pod.metadata.namespace.clone()?, pod.metadata.name.clone()?);
    Some(Destination { kind, namespace, name })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_s_address_names_no_pod() {
        let pod = |host_network: bool| {
            let pod = json!({"metadata": {"name": "postgres-0", "namespace": "db"},
                "spec": {"containers": [], "hostNetwork": host_network}});
            name_of(&serde_json::from_value(pod).unwrap()).map(|name| name.to_string())
        };
        assert_eq!(pod(false).as_deref(), Some("pod db/postgres-0"));
        assert_eq!(pod(true), None);
    }
}
