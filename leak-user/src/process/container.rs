//! A container's id, from `/proc/PID/cgroup`, cgroups(7).

/// Length of the ids that Docker, containerd and CRI-O give.
const ID_LENGTH: usize = 64;

/// Finds the container id in the text of `/proc/PID/cgroup`.
///
/// It is the last path component that is an id, bare or dressed up by the runtime
/// (`docker-<id>.scope`, `cri-containerd-<id>.scope`, `crio-<id>`): a container may hold cgroups of
/// its own below its id, and the innermost of nested containers is the one wanted. Version 1
/// hierarchies that the runtime does not use (`/`) have none, so the first line with an id counts.
#[must_use]
pub fn id(cgroup: &str) -> Option<&str> {
    cgroup.lines().find_map(|line| {
        // hierarchy:controllers:path, where the path may hold colons of its own.
        let path = line.splitn(3, ':').nth(2)?;
        path.rsplit('/').find_map(component_id)
    })
}

fn component_id(component: &str) -> Option<&str> {
    let name = component.strip_suffix(".scope").unwrap_or(component);
    // containerd's cgroupfs driver writes slice:cri-containerd:id.
    let id = name.rsplit(['-', ':']).next()?;
    let is_id =
        id.len() == ID_LENGTH && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    // CRI-O's and Podman's monitors run beside the container, not in it.
    let is_monitor = name.contains("conmon");
    (is_id && !is_monitor).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::id;

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
}
