//! The cluster's services, by address.

use std::collections::HashMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;

use crate::model::{Destination, DestinationKind};

/// Most services kept. Kubernetes itself is made for 10,000.
const MAX_SERVICES: usize = 32 * 1024;
/// Most addresses kept of one service.
const MAX_ADDRESSES: usize = 32;

/// The known services.
#[derive(Debug, Default)]
pub(super) struct Services {
    /// UIDs by address.
    by_address: HashMap<IpAddr, String>,
    /// By UID.
    services: HashMap<String, KnownService>,
}

#[derive(Debug)]
struct KnownService {
    destination: Destination,
    addresses: Vec<IpAddr>,
}

impl Services {
    /// The service that has an address.
    pub(super) fn find(&self, address: IpAddr) -> Option<&Destination> {
        let uid = self.by_address.get(&address)?;
        self.services.get(uid).map(|known| &known.destination)
    }

    /// Adds or updates a service.
    pub(super) fn put(&mut self, service: &Service) {
        let metadata = &service.metadata;
        let (Some(uid), Some(namespace), Some(name)) =
            (&metadata.uid, &metadata.namespace, &metadata.name)
        else {
            return;
        };
        self.remove(uid);
        let addresses = addresses(service);
        if addresses.is_empty() || self.services.len() >= MAX_SERVICES {
            return;
        }
        for address in &addresses {
            self.by_address.insert(*address, uid.clone());
        }
        let kind = DestinationKind::Service;
        let destination = Destination { kind, namespace: namespace.clone(), name: name.clone() };
        self.services.insert(uid.clone(), KnownService { destination, addresses });
    }

    /// Forgets a service.
    pub(super) fn remove(&mut self, uid: &str) {
        let Some(known) = self.services.remove(uid) else { return };
        for address in known.addresses {
            // Another service may have taken the address over.
            if self.by_address.get(&address).is_some_and(|owner| owner == uid) {
                self.by_address.remove(&address);
            }
        }
    }
}

/// Every address that clients may connect to. Headless services have the cluster IP "None".
fn addresses(service: &Service) -> Vec<IpAddr> {
    let spec = service.spec.as_ref();
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let balanced = balancer.into_iter().flat_map(|balancer| balancer.ingress.iter().flatten());
    let one = spec.and_then(|spec| spec.cluster_ip.as_ref());
    let many = spec.into_iter().flat_map(|spec| {
        spec.cluster_ips.iter().flatten().chain(spec.external_ips.iter().flatten())
    });
    let all = one.into_iter().chain(many).chain(balanced.filter_map(|ingress| ingress.ip.as_ref()));
    let mut addresses: Vec<IpAddr> = all.filter_map(|text| text.parse().ok()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(MAX_ADDRESSES);
    addresses
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(uid: &str, name: &str, spec: &Value) -> Service {
        serde_json::from_value(json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": "db", "uid": uid},
            "spec": spec,
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}, {"hostname": "x"}]}},
        }))
        .unwrap()
    }

    fn find(services: &Services, address: &str) -> Option<String> {
        services.find(address.parse().unwrap()).map(Destination::to_string)
    }

    #[test]
    fn every_address_leads_to_the_service() {
        let mut services = Services::default();
        let spec = json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00::7"],
            "externalIPs": ["198.51.100.7"]});
        services.put(&service("1", "postgres", &spec));
        for address in ["10.96.0.7", "fd00::7", "198.51.100.7", "192.0.2.9"] {
            assert_eq!(find(&services, address).as_deref(), Some("service db/postgres"));
        }
        assert_eq!(find(&services, "10.96.0.8"), None);
    }

    #[test]
    fn changes_replace_and_addresses_change_hands() {
        let mut services = Services::default();
        services.put(&service("1", "old", &json!({"clusterIP": "10.96.0.7"})));
        services.put(&service("1", "old", &json!({"clusterIP": "10.96.0.8"})));
        assert_eq!(find(&services, "10.96.0.7"), None);
        services.put(&service("2", "new", &json!({"clusterIP": "10.96.0.8"})));
        services.remove("1");
        assert_eq!(find(&services, "10.96.0.8").as_deref(), Some("service db/new"));
        services.remove("2");
        assert!(services.by_address.is_empty() && services.services.is_empty());
    }

    #[test]
    fn headless_services_have_no_address() {
        let mut services = Services::default();
        let mut headless = service("1", "postgres", &json!({"clusterIP": "None"}));
        headless.status = None;
        services.put(&headless);
        assert!(services.services.is_empty());
    }
}
