//! The pods of this node, found by container and by UID.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{ContainerStatus, Pod as ApiPod, PodSpec, PodStatus};

use crate::model::Pod;
use crate::sources::kubernetes::settings::LabelKey;

/// Most pods kept. Kubernetes itself is made for 110 on a node.
const MAX_PODS: usize = 8192;
/// Most containers kept of one pod, counting those before a restart.
const MAX_CONTAINERS: usize = 256;

/// The annotation with the UID that the kubelet gave to a static pod. Its cgroup has that UID,
/// while its mirror pod at the API server has another one.
const STATIC_UID: &str = "kubernetes.io/config.hash";

/// The known pods of this node.
#[derive(Debug, Default)]
pub(super) struct Directory {
    /// By UID.
    pods: HashMap<String, KnownPod>,
    /// UIDs by the UID in the cgroup, where the two differ.
    statics: HashMap<String, String>,
    /// UIDs by container id.
    containers: HashMap<String, String>,
}

/// A pod.
#[derive(Debug)]
struct KnownPod {
    namespace: String,
    name: String,
    labels: BTreeMap<String, String>,
    /// Container names by container id.
    names: BTreeMap<String, String>,
    /// The name of its only container, if it has just one.
    only: Option<String>,
    static_uid: Option<String>,
}

impl Directory {
    /// The pod in which a process runs, by the ids in its cgroup.
    ///
    /// A new container is missing from the pod's status for a while; if the pod has just one
    /// container, it must be that.
    pub(super) fn find(&self, container_id: Option<&str>, pod_uid: Option<&str>) -> Option<Pod> {
        let by_container = container_id.and_then(|id| self.containers.get(id));
        let uid = by_container.map(String::as_str).or_else(|| {
            let uid = pod_uid?;
            Some(self.statics.get(uid).map_or(uid, String::as_str))
        })?;
        let pod = self.pods.get(uid)?;
        let told = container_id.and_then(|id| pod.names.get(id));
        let container = told.or(pod.only.as_ref())?.clone();
        let (namespace, name) = (pod.namespace.clone(), pod.name.clone());
        Some(Pod { namespace, name, container, labels: pod.labels.clone() })
    }

    /// How many pods are known.
    pub(super) fn len(&self) -> usize {
        self.pods.len()
    }

    /// Adds or updates a pod, with those of its labels that are in `labels`.
    pub(super) fn put(&mut self, pod: &ApiPod, labels: &[LabelKey]) {
        let metadata = &pod.metadata;
        let (Some(uid), Some(namespace), Some(name)) =
            (&metadata.uid, &metadata.namespace, &metadata.name)
        else {
            return;
        };
        self.remove(uid);
        if self.pods.len() >= MAX_PODS {
            log::debug!("more than {MAX_PODS} pods; {namespace}/{name} is left out");
            return;
        }
        let kept = |key: &LabelKey| {
            let value = metadata.labels.as_ref()?.get(key.as_str())?;
            Some((key.as_str().to_owned(), value.clone()))
        };
        let annotation = metadata.annotations.as_ref().and_then(|all| all.get(STATIC_UID));
        let known = KnownPod {
            namespace: namespace.clone(),
            name: name.clone(),
            labels: labels.iter().filter_map(kept).collect(),
            names: pod.status.as_ref().map(names_of_containers).unwrap_or_default(),
            only: pod.spec.as_ref().and_then(only_container),
            static_uid: annotation.filter(|other| *other != uid).cloned(),
        };
        for container in known.names.keys() {
            self.containers.insert(container.clone(), uid.clone());
        }
        if let Some(other) = &known.static_uid {
            self.statics.insert(other.clone(), uid.clone());
        }
        self.pods.insert(uid.clone(), known);
    }

    /// Forgets a pod.
    pub(super) fn remove(&mut self, uid: &str) {
        let Some(known) = self.pods.remove(uid) else { return };
        for container in known.names.keys() {
            self.containers.remove(container);
        }
        if let Some(other) = known.static_uid {
            self.statics.remove(&other);
        }
    }
}

/// Container names by id, for running containers and those before a restart.
fn names_of_containers(status: &PodStatus) -> BTreeMap<String, String> {
    let all = [
        &status.container_statuses,
        &status.init_container_statuses,
        &status.ephemeral_container_statuses,
    ];
    let statuses = all.into_iter().flatten().flatten();
    let named = statuses.flat_map(|status| {
        ids_of_container(status).map(|id| (id.to_owned(), status.name.clone())).collect::<Vec<_>>()
    });
    named.take(MAX_CONTAINERS).collect()
}

/// The ids of a container, now and before its last restart. They look like `containerd://<id>`.
fn ids_of_container(status: &ContainerStatus) -> impl Iterator<Item = &str> {
    let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let urls = [
        status.container_id.as_deref(),
        last.and_then(|terminated| terminated.container_id.as_deref()),
    ];
    urls.into_iter().flatten().filter_map(|url| Some(url.split_once("://")?.1))
}

fn only_container(spec: &PodSpec) -> Option<String> {
    let more = spec.init_containers.iter().flatten().count()
        + spec.ephemeral_containers.iter().flatten().count();
    match spec.containers.as_slice() {
        [only] if more == 0 => Some(only.name.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const UID: &str = "4a6f8bd5-03bf-4ca4-8d5f-5c1c2a3e7a01";

    fn labels() -> Vec<LabelKey> {
        vec!["app".parse().unwrap(), "absent".parse().unwrap()]
    }

    fn put(directory: &mut Directory, pod: Value) {
        directory.put(&serde_json::from_value(pod).unwrap(), &labels());
    }

    /// A pod as the API server sends it, reduced to the fields that are read.
    fn pod(containers: &[&str], statuses: &Value) -> Value {
        let containers: Vec<_> = containers.iter().map(|name| json!({"name": name})).collect();
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "orders-7d9f", "namespace": "shop", "uid": UID,
                "labels": {"app": "orders", "pod-template-hash": "7d9f"}},
            "spec": {"nodeName": "node-1", "containers": containers},
            "status": {"phase": "Running", "containerStatuses": statuses},
        })
    }

    fn status(name: &str, id: &str, last: Option<&str>) -> Value {
        let last = last.map(|id| json!({"terminated": {"exitCode": 137, "containerID": id}}));
        json!({"name": name, "containerID": id, "lastState": last.unwrap_or(json!({})),
            "image": "i", "imageID": "", "ready": true, "restartCount": 1})
    }

    fn names(pod: Option<Pod>) -> Option<String> {
        pod.map(|pod| format!("{}/{}/{}", pod.namespace, pod.name, pod.container))
    }

    #[test]
    fn containers_have_names_before_and_after_a_restart() {
        let mut directory = Directory::default();
        let statuses = json!([
            status("app", "containerd://new", Some("containerd://old")),
            status("proxy", "cri-o://beside", None),
        ]);
        put(&mut directory, pod(&["app", "proxy"], &statuses));
        for (id, name) in [("new", "app"), ("old", "app"), ("beside", "proxy")] {
            let found = directory.find(Some(id), None).unwrap();
            assert_eq!((found.container.as_str(), found.labels["app"].as_str()), (name, "orders"));
            assert_eq!(found.labels.len(), 1, "only what was asked for and is there");
        }
        assert_eq!(directory.find(Some("other"), None), None);
        assert_eq!(directory.find(None, None), None);
        // A container without a status yet could be either of the two.
        assert_eq!(directory.find(Some("other"), Some(UID)), None);
    }

    #[test]
    fn the_only_container_is_known_before_its_status() {
        let mut directory = Directory::default();
        put(&mut directory, pod(&["app"], &json!([])));
        let found = names(directory.find(Some("new"), Some(UID)));
        assert_eq!(found.as_deref(), Some("shop/orders-7d9f/app"));
        assert_eq!(directory.find(Some("new"), None), None);
    }

    #[test]
    fn init_and_ephemeral_containers_count() {
        let mut directory = Directory::default();
        let mut pod = pod(&["app"], &json!([status("app", "docker://a", None)]));
        pod["spec"]["initContainers"] = json!([{"name": "migrate"}]);
        pod["status"]["initContainerStatuses"] = json!([status("migrate", "docker://b", None)]);
        pod["status"]["ephemeralContainerStatuses"] = json!([status("debug", "docker://c", None)]);
        put(&mut directory, pod);
        for (id, name) in [("a", "app"), ("b", "migrate"), ("c", "debug")] {
            assert_eq!(directory.find(Some(id), None).unwrap().container, name);
        }
        assert_eq!(directory.find(Some("d"), Some(UID)), None);
    }

    #[test]
    fn static_pods_are_found_by_the_uid_that_the_kubelet_gave() {
        let on_disk = "9a8e6f0b5d4c3b2a1908f7e6d5c4b3a2";
        let mut directory = Directory::default();
        let mut pod = pod(&["app"], &json!([]));
        pod["metadata"]["annotations"] = json!({"kubernetes.io/config.hash": on_disk});
        put(&mut directory, pod.clone());
        assert!(directory.find(Some("a"), Some(on_disk)).is_some());
        // The kubelet itself shows it under that UID.
        let mut of_kubelet = Directory::default();
        pod["metadata"]["uid"] = on_disk.into();
        put(&mut of_kubelet, pod);
        assert!(of_kubelet.find(Some("a"), Some(on_disk)).is_some());
        directory.remove(UID);
        assert_eq!(directory.find(Some("a"), Some(on_disk)), None);
    }

    #[test]
    fn changes_replace_and_nothing_stays_of_what_is_gone() {
        let mut directory = Directory::default();
        put(&mut directory, pod(&["app"], &json!([status("app", "docker://a", None)])));
        put(&mut directory, pod(&["app"], &json!([status("app", "docker://b", None)])));
        assert_eq!((directory.len(), directory.find(Some("a"), None)), (1, None));
        assert!(directory.find(Some("b"), None).is_some());
        directory.remove(UID);
        directory.remove(UID);
        assert!(directory.len() == 0 && directory.containers.is_empty());
    }

    #[test]
    fn what_says_too_little_is_left_out() {
        let mut directory = Directory::default();
        put(&mut directory, json!({"metadata": {"name": "a"}}));
        assert_eq!(directory.len(), 0);
        put(&mut directory, json!({"metadata": {"name": "a", "namespace": "b", "uid": UID}}));
        assert_eq!(directory.find(Some("a"), Some(UID)), None);
    }

    #[test]
    fn it_is_bounded() {
        let mut directory = Directory::default();
        for number in 0..=MAX_PODS {
            let metadata = json!({"name": "a", "namespace": "b", "uid": number.to_string()});
            put(&mut directory, json!({"metadata": metadata}));
        }
        assert_eq!(directory.len(), MAX_PODS);
    }
}
