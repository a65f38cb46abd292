//! Pods as objects of the API.

use serde_json::{Value, json};

use super::NODE;

/// The fields of a pod that tests need.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields are those of the API's objects")]
pub struct PodOnNode<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
    pub containers: &'a [&'a str],
    /// Id of the running container, which is the first one.
    pub running: Option<&'a str>,
    pub labels: Value,
}

impl PodOnNode<'_> {
    /// The object as a user creates it, already assigned to the node.
    #[must_use]
    pub fn as_new_object(&self) -> Value {
        let container = |name: &&str| json!({"name": name, "image": "shop:1"});
        let containers: Vec<_> = self.containers.iter().map(container).collect();
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"namespace": self.namespace, "name": self.name, "labels": self.labels},
            "spec": {"nodeName": NODE, "containers": containers},
        })
    }

    /// The status that the kubelet adds.
    #[must_use]
    pub fn as_status(&self) -> Value {
        let status = |id: &&str| {
            json!({"name": self.containers[0], "containerID": format!("containerd://{id}"),
                "image": "shop:1", "imageID": "", "ready": true, "restartCount": 0,
                "state": {"running": {"startedAt": "2026-01-02T03:04:05Z"}}})
        };
        let statuses: Vec<_> = self.running.iter().map(status).collect();
        json!({"status": {"phase": "Running", "containerStatuses": statuses}})
    }

    /// The object with its status.
    pub(super) fn as_running_object(&self) -> Value {
        let mut pod = self.as_new_object();
        pod["metadata"]["uid"] = self.uid.into();
        pod["status"] = self.as_status()["status"].take();
        pod
    }
}
