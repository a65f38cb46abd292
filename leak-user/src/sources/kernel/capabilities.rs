//! The capabilities that tracing needs, capabilities(7).

use rustix::thread::CapabilitySet;

/// A capability and its use here.
pub(crate) struct Capability {
    /// Its name without the `CAP_`.
    pub(crate) name: &'static str,
    /// What it allows this tool to do.
    pub(crate) purpose: &'static str,
    /// What is lost without it.
    pub(crate) without: &'static str,
    /// Whether tracing is impossible without it.
    is_needed: bool,
    bit: CapabilitySet,
}

/// All that are of use, the needed ones first.
pub(crate) const CAPABILITIES: &[Capability] = &[
    Capability {
        name: "BPF",
        purpose: "load the kernel programs",
        without: "nothing can be traced",
        is_needed: true,
        bit: CapabilitySet::BPF,
    },
    Capability {
        name: "PERFMON",
        purpose: "attach them to tracepoints and read user stacks",
        without: "nothing can be traced",
        is_needed: true,
        bit: CapabilitySet::PERFMON,
    },
    Capability {
        name: "SYS_PTRACE",
        purpose: "read the memory maps and file descriptors of other users' processes",
        without: "stacks of other users' processes are not symbolized, and it is unknown who holds \
                  a connection",
        is_needed: false,
        bit: CapabilitySet::SYS_PTRACE,
    },
    Capability {
        name: "DAC_READ_SEARCH",
        purpose: "read the binaries of other users' processes",
        without: "stacks in binaries that this user cannot read are not symbolized",
        is_needed: false,
        bit: CapabilitySet::DAC_READ_SEARCH,
    },
    Capability {
        name: "SYS_ADMIN",
        purpose: "enter other network namespaces, measure the kernel programs' cost, and attach \
                  kprobes on some distributions",
        without: "connections in containers that were opened before the trace are not listed",
        is_needed: false,
        bit: CapabilitySet::SYS_ADMIN,
    },
];

/// The effective capabilities of this process; `None` when the kernel does not tell.
pub(crate) fn effective() -> Option<CapabilitySet> {
    rustix::thread::capabilities(None).ok().map(|sets| sets.effective)
}

impl Capability {
    /// Whether a process with these capabilities may do what this one allows.
    pub(crate) fn is_in(&self, effective: CapabilitySet) -> bool {
        // Before Linux 5.8, CAP_SYS_ADMIN alone allowed what these two do. It still does.
        let split_off = CapabilitySet::BPF.union(CapabilitySet::PERFMON);
        effective.contains(self.bit)
            || (split_off.contains(self.bit) && effective.contains(CapabilitySet::SYS_ADMIN))
    }
}

/// Whether this process is known to lack the capability of this name.
pub(crate) fn lacks(name: &str) -> bool {
    let Some(effective) = effective() else { return false };
    CAPABILITIES.iter().any(|capability| capability.name == name && !capability.is_in(effective))
}

/// The needed capabilities that are not among these.
pub(crate) fn missing(effective: CapabilitySet) -> Vec<&'static str> {
    let missing = CAPABILITIES.iter().filter(|it| it.is_needed && !it.is_in(effective));
    missing.map(|capability| capability.name).collect()
}

/// The names of all, for a sentence.
pub(crate) fn names() -> String {
    let names: Vec<_> = CAPABILITIES.iter().map(|capability| capability.name).collect();
    match names.split_last() {
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_capability_includes_those_split_off_it() {
        assert!(missing(CapabilitySet::SYS_ADMIN).is_empty());
        assert_eq!(missing(CapabilitySet::PERFMON), ["BPF"]);
        assert_eq!(missing(CapabilitySet::SYS_PTRACE), ["BPF", "PERFMON"]);
        let ptrace = CAPABILITIES.iter().find(|it| it.name == "SYS_PTRACE").unwrap();
        assert!(!ptrace.is_in(CapabilitySet::SYS_ADMIN));
    }

    #[test]
    fn names_make_a_sentence() {
        assert_eq!(names(), "BPF, PERFMON, SYS_PTRACE, DAC_READ_SEARCH and SYS_ADMIN");
    }
}
