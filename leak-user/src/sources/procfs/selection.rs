//! Which processes are traced, by what procfs says of them.

use std::io::Read as _;

use leak_stacks::Glob;

use crate::model::ProcessInfo;
use crate::sources::procfs::container::{self, ContainerName};
use crate::sources::procfs::name::CommPattern;

/// What a process must be to be traced. Of each kind one has to match, and none of `exclude_comm`;
/// a kind without values asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Its name.
    pub comm: Vec<CommPattern>,
    /// Names that are not traced.
    pub exclude_comm: Vec<CommPattern>,
    /// The path of its program.
    pub exe: Vec<Glob>,
    /// Its container.
    pub container: Vec<ContainerName>,
    /// Its systemd unit.
    pub unit: Vec<String>,
}

impl Selection {
    /// Whether every process is traced.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }

    /// Whether this process is traced. What cannot be read does not match.
    #[must_use]
    pub fn wants(&self, info: &ProcessInfo) -> bool {
        let exe = || info.exe.as_deref().unwrap_or_default();
        self.wants_name(&info.comm)
            && (self.exe.is_empty() || self.exe.iter().any(|pattern| pattern.matches(exe())))
            && (self.container.is_empty() || self.in_container(info))
            && (self.unit.is_empty() || self.in_unit(info.key.pid))
    }

    /// Whether a process of which only the name is known is traced.
    #[must_use]
    pub fn wants_gone(&self, comm: &str) -> bool {
        let asks_more = !self.exe.is_empty() || !self.container.is_empty() || !self.unit.is_empty();
        !asks_more && self.wants_name(comm)
    }

    fn wants_name(&self, comm: &str) -> bool {
        let among = |patterns: &[CommPattern]| patterns.iter().any(|one| one.matches(comm));
        (self.comm.is_empty() || among(&self.comm)) && !among(&self.exclude_comm)
    }

    fn in_container(&self, info: &ProcessInfo) -> bool {
        let Some(id) = info.container_id.as_deref() else { return false };
        self.container.iter().any(|name| name.is_of(id))
    }

    fn in_unit(&self, pid: u32) -> bool {
        let mut cgroup = String::new();
        let file = std::fs::File::open(format!("/proc/{pid}/cgroup"));
        let read = file.and_then(|file| file.take(MAX_CGROUP).read_to_string(&mut cgroup));
        read.is_ok() && self.unit.iter().any(|unit| container::is_in_unit(&cgroup, unit))
    }
}

/// How much of `/proc/PID/cgroup` is read: there are a dozen hierarchies of at most 4 KiB.
const MAX_CGROUP: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ProcessKey;

    fn process(comm: &str, exe: Option<&str>, container: Option<&str>) -> ProcessInfo {
        let key = ProcessKey { pid: std::process::id(), start_ticks: 1 };
        let mut info = ProcessInfo::gone(key, comm);
        info.exe = exe.map(str::to_owned);
        info.container_id = container.map(str::to_owned);
        info
    }

    fn comm(patterns: &[&str]) -> Vec<CommPattern> {
        patterns.iter().map(|pattern| pattern.parse().unwrap()).collect()
    }

    #[test]
    fn of_each_kind_one_has_to_match() {
        let selection = Selection {
            comm: comm(&["java", "node"]),
            exe: vec!["/opt/*".parse().unwrap()],
            ..Selection::default()
        };
        assert!(selection.wants(&process("java", Some("/opt/jdk/bin/java"), None)));
        assert!(!selection.wants(&process("java", Some("/usr/bin/java"), None)));
        assert!(!selection.wants(&process("java", None, None)), "it cannot be read");
        assert!(!selection.wants(&process("ruby", Some("/opt/ruby"), None)));
        assert!(!selection.wants_gone("java"));
    }

    #[test]
    fn what_is_excluded_is_not_traced() {
        let selection = Selection { exclude_comm: comm(&["psql", "pg_*"]), ..Selection::default() };
        assert!(selection.wants_gone("orders") && !selection.wants_gone("pg_dump"));
        assert!(!selection.is_everything() && Selection::default().is_everything());
    }

    #[test]
    fn containers_are_known_by_the_beginning_of_their_id() {
        let id = "3f4f6c1c0a3f".repeat(5) + "3f4f";
        let selection =
            Selection { container: vec!["3f4f6c1c0a3f".parse().unwrap()], ..Selection::default() };
        assert!(selection.wants(&process("x", None, Some(&id))));
        assert!(!selection.wants(&process("x", None, Some(&"0".repeat(64)))));
        assert!(!selection.wants(&process("x", None, None)));
    }

    #[test]
    fn a_unit_that_nobody_has_selects_nobody() {
        let unit = vec!["no-such-unit".to_owned()];
        let selection = Selection { unit, ..Selection::default() };
        assert!(!selection.wants(&process("x", None, None)));
    }
}
