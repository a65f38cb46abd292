//! Finds container ids and pod UIDs in `/proc/PID/cgroup`, cgroups(7).

use std::fs::File;
use std::io::{BufReader, Read as _};
use std::str::FromStr;

use serde::Deserialize;

/// Length of container ids of Docker, containerd and CRI-O.
const ID_LENGTH: usize = 64;
/// Length of the UIDs of static pods: a checksum of their manifest.
const STATIC_POD_LENGTH: usize = 32;
/// Positions of the dashes in a UUID, RFC 9562.
const DASHES: [usize; 4] = [8, 13, 18, 23];
/// Length of a UUID.
const UUID_LENGTH: usize = 36;

/// Finds the container id in the text of `/proc/PID/cgroup`.
///
/// It is the last path component that is an id, bare or as the runtime decorates it
/// (`docker-<id>.scope`, `cri-containerd-<id>.scope`, `crio-<id>`): a container may create cgroups
/// below its own, and of nested containers the innermost is wanted. Version 1 hierarchies that the
/// runtime does not use (`/`) have no id, so the first line with one counts.
#[must_use]
pub fn id(cgroup: &str) -> Option<&str> {
    innermost(cgroup, component_id)
}

/// Finds the UID of the Kubernetes pod in the text of `/proc/PID/cgroup`, in Kubernetes' notation.
///
/// The kubelet names a pod's cgroup `pod<uid>`, or with the systemd driver
/// `kubepods-burstable-pod<uid>.slice` with `_` for each `-`. The path above it is ignored: it
/// depends on the kubelet's settings, and is hidden in a cgroup namespace.
#[must_use]
pub fn pod_uid(cgroup: &str) -> Option<String> {
    innermost(cgroup, component_pod)
}

/// Whether the text of `/proc/PID/cgroup` has a systemd unit, such as `orders.service`, on its
/// path. Without a suffix a service is meant.
#[must_use]
pub fn is_in_unit(cgroup: &str, unit: &str) -> bool {
    let service;
    let unit = if unit.contains('.') {
        unit
    } else {
        service = format!("{unit}.service");
        &service
    };
    innermost(cgroup, |component| (component == unit).then_some(())).is_some()
}

/// A container as people name it: the beginning of its id, or the name that Docker gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerName(String);

/// A text that cannot name a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a container has an id of at least {SHORTEST_ID} hexadecimal digits, or a name")]
pub struct NoContainerName;

/// Fewest digits of an id that are taken for one.
const SHORTEST_ID: usize = 8;
/// Where Docker keeps what it knows of each container.
const DOCKER: &str = "/var/lib/docker/containers";
/// How much of that is read.
const MAX_CONFIG: u64 = 1 << 20;

impl FromStr for ContainerName {
    type Err = NoContainerName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.trim_start_matches('/');
        let is_name = !name.is_empty() && !name.contains('/');
        if is_name { Ok(Self(name.to_owned())) } else { Err(NoContainerName) }
    }
}

impl ContainerName {
    /// Whether it names the container with this id.
    #[must_use]
    pub fn is_of(&self, id: &str) -> bool {
        let is_id = self.0.len() >= SHORTEST_ID && self.0.bytes().all(is_hexadecimal);
        (is_id && id.starts_with(&self.0)) || docker_name(id).is_some_and(|name| name == self.0)
    }
}

/// The name that Docker gave a container; `None` for those of others.
fn docker_name(id: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(rename = "Name")]
        name: String,
    }
    let file = File::open(format!("{DOCKER}/{id}/config.v2.json")).ok()?;
    let config: Config = serde_json::from_reader(BufReader::new(file.take(MAX_CONFIG))).ok()?;
    Some(config.name.trim_start_matches('/').to_owned())
}

/// The first match of `wanted`: lines in order, and the path components of a line from the last to
/// the first.
fn innermost<'a, T>(cgroup: &'a str, wanted: impl Fn(&'a str) -> Option<T>) -> Option<T> {
    cgroup.lines().find_map(|line| {
        // hierarchy:controllers:path, where the path may contain colons.
        let path = line.splitn(3, ':').nth(2)?;
        path.rsplit('/').find_map(&wanted)
    })
}

fn component_id(component: &str) -> Option<&str> {
    let name = component.strip_suffix(".scope").unwrap_or(component);
    // containerd's cgroupfs driver writes slice:cri-containerd:id.
    let id = name.rsplit(['-', ':']).next()?;
    let is_id = id.len() == ID_LENGTH && id.bytes().all(is_hexadecimal);
    // conmon, the monitor of CRI-O and Podman, runs beside the container, not in it.
    let is_monitor = name.contains("conmon");
    (is_id && !is_monitor).then_some(id)
}

fn component_pod(component: &str) -> Option<String> {
    let name = component.split(':').next()?;
    let uid = match name.strip_suffix(".slice") {
        Some(slice) => slice.rsplit('-').next()?.strip_prefix("pod")?.replace('_', "-"),
        None => name.strip_prefix("pod")?.to_owned(),
    };
    is_pod_uid(&uid).then_some(uid)
}

fn is_pod_uid(uid: &str) -> bool {
    match uid.len() {
        STATIC_POD_LENGTH => uid.bytes().all(is_hexadecimal),
        UUID_LENGTH => uid.bytes().enumerate().all(|(at, byte)| {
            if DASHES.contains(&at) { byte == b'-' } else { is_hexadecimal(byte) }
        }),
        _ => false,
    }
}

fn is_hexadecimal(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::{ContainerName, id, is_in_unit, pod_uid};

    #[test]
    fn units_are_on_the_path() {
        let text = "1:name=systemd:/\n0::/system.slice/orders.service/worker\n";
        assert!(is_in_unit(text, "orders") && is_in_unit(text, "orders.service"));
        assert!(is_in_unit(text, "system.slice"));
        assert!(!is_in_unit(text, "order") && !is_in_unit("0::/\n", "orders"));
    }

    #[test]
    fn a_short_name_is_no_beginning_of_an_id() {
        let name = |text: &str| text.parse::<ContainerName>().unwrap();
        assert!(name("3f4f6c1c0a3f").is_of(A) && name(A).is_of(A));
        assert!(!name("3f").is_of(A) && !name("web").is_of(A));
        assert!("".parse::<ContainerName>().is_err() && "a/b".parse::<ContainerName>().is_err());
    }

    const A: &str = "3f4f6c1c0a3f2f0c4c4d0b0f5a6b7c8d9e0f1a2b3c4d5e6f708192a3b4c5d6e7";
    const B: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[track_caller]
    fn found(text: &str, expected: Option<&str>) {
        let text = text.replace("{A}", A).replace("{B}", B);
        assert_eq!(id(&text), expected, "{text}");
    }

    #[test]
    fn runtimes() {
        found("0::/system.slice/docker-{A}.scope\n", Some(A));
        found("12:pids:/docker/{A}\n0::/system.slice/containerd.service\n", Some(A));
        found("1:name=systemd:/kubepods/burstable/pod4d-1/{A}\n", Some(A));
        found("0::/kubepods.slice/kubepods-pod1_2.slice/cri-containerd-{A}.scope\n", Some(A));
        found("0::/kubepods.slice/kubepods-pod1.slice/crio-{A}.scope\n", Some(A));
        found("0::/kubepods.slice/kubepods-pod1.slice/crio-{A}\n", Some(A));
        found("3:cpu:/system.slice/kubepods-pod1.slice:cri-containerd:{A}\n", Some(A));
        found("0::/machine.slice/libpod-{A}.scope/container\n", Some(A));
        found("0::/../cri-containerd-{A}.scope\n", Some(A));
    }

    #[test]
    fn nested_containers_give_the_inner_one() {
        found("0::/docker/{A}/kubepods/pod1/{B}\n", Some(B));
        found("0::/docker/{A}/init.scope\n", Some(A));
    }

    #[test]
    fn hierarchies_without_one_are_passed_over() {
        found("13:rdma:/\n12:pids:/docker/{A}\n", Some(A));
    }

    #[test]
    fn none_outside_a_container() {
        found("", None);
        found("0::/\n", None);
        found("0::/user.slice/user-1000.slice/session-3.scope\n", None);
        found("0::/machine.slice/libpod-conmon-{A}.scope\n", None);
        found("0::/docker/{A}0\n", None);
        found(
            "0::/docker/3F4F6C1C0A3F2F0C4C4D0B0F5A6B7C8D9E0F1A2B3C4D5E6F708192A3B4C5D6E7\n",
            None,
        );
        found("nonsense {A}\n", None);
        found("::\n\n:\n", None);
    }

    const UID: &str = "4a6f8bd5-03bf-4ca4-8d5f-5c1c2a3e7a01";
    const STATIC: &str = "9a8e6f0b5d4c3b2a1908f7e6d5c4b3a2";

    /// Checks pod and container; `{U}` is the UID, `{_}` the UID in systemd's notation, and `{S}` a
    /// static pod's.
    #[track_caller]
    fn found_in_pod(text: &str, pod: Option<&str>, container: Option<&str>) {
        let text = text.replace("{A}", A).replace("{B}", B).replace("{S}", STATIC);
        let text = text.replace("{U}", UID).replace("{_}", &UID.replace('-', "_"));
        assert_eq!(pod_uid(&text).as_deref(), pod, "{text}");
        assert_eq!(id(&text), container, "{text}");
    }

    #[test]
    fn pods_by_cgroupfs() {
        // Guaranteed, burstable and best-effort pods; version 1, 2, and both at once.
        found_in_pod("11:memory:/kubepods/pod{U}/{A}\n", Some(UID), Some(A));
        found_in_pod("0::/kubepods/burstable/pod{U}/{A}\n", Some(UID), Some(A));
        found_in_pod(
            "4:misc:/\n3:cpu,cpuacct:/kubepods/besteffort/pod{U}/{A}\n0::/\n",
            Some(UID),
            Some(A),
        );
        found_in_pod("0::/kubepods/besteffort/pod{U}/crio-{A}\n", Some(UID), Some(A));
        // Static pods, with the checksum of their manifest.
        found_in_pod("0::/kubepods/burstable/pod{S}/{A}\n", Some(STATIC), Some(A));
    }

    #[test]
    fn pods_by_systemd() {
        let slices = "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{_}.slice";
        for scope in ["cri-containerd-{A}.scope", "crio-{A}.scope", "docker-{A}.scope"] {
            found_in_pod(&format!("{slices}/{scope}\n"), Some(UID), Some(A));
        }
        found_in_pod(
            "1:name=systemd:/kubepods.slice/kubepods-pod{_}.slice/docker-{A}.scope\n",
            Some(UID),
            Some(A),
        );
        found_in_pod(
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{S}.slice/\
             crio-{A}.scope/container\n",
            Some(STATIC),
            Some(A),
        );
        // CRI-O's monitor is in the pod, but not in the container.
        found_in_pod(&format!("{slices}/crio-conmon-{{A}}.scope\n"), Some(UID), None);
    }

    #[test]
    fn pods_where_the_drivers_of_kubelet_and_runtime_differ() {
        found_in_pod(
            "5:pids:/system.slice/containerd.service/kubepods-besteffort-pod{_}.slice:\
             cri-containerd:{A}\n",
            Some(UID),
            Some(A),
        );
        found_in_pod("0::/kubepods-pod{_}.slice:cri-containerd:{A}\n", Some(UID), Some(A));
    }

    #[test]
    fn pods_below_other_roots() {
        // The kubelet in a container, as in kind, and with a cgroup root of its own.
        found_in_pod("0::/docker/{B}/kubelet/kubepods/pod{U}/{A}\n", Some(UID), Some(A));
        found_in_pod(
            "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{_}.slice/\
             cri-containerd-{A}.scope\n",
            Some(UID),
            Some(A),
        );
        // Seen from within a cgroup namespace.
        found_in_pod("0::/../../pod{U}/{A}\n", Some(UID), Some(A));
        found_in_pod("0::/../cri-containerd-{A}.scope\n", None, Some(A));
        // Docker in a pod.
        found_in_pod("0::/kubepods/pod{U}/{A}/docker/{B}\n", Some(UID), Some(B));
    }

    #[test]
    fn no_pods() {
        found_in_pod("0::/kubepods/burstable/podium/{A}\n", None, Some(A));
        found_in_pod(
            "0::/machine.slice/machine-libpod_pod_{A}.slice/libpod-{B}.scope\n",
            None,
            Some(B),
        );
        found_in_pod("0::/kubepods/pod{U}0\n", None, None);
        found_in_pod("0::/pod4a6f8bd5003bf-4ca4-8d5f-5c1c2a3e7a01\n", None, None);
        found_in_pod("0::/pods{U}\n", None, None);
    }
}
