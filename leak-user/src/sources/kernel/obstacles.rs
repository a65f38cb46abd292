//! What besides the kernel's age can keep its programs from loading: a lack of privileges, lockdown.

/// Number of `CAP_SYS_ADMIN`: root's capability before others were split off it.
pub(crate) const SYS_ADMIN: u32 = 21;

/// Without these nothing can be traced: name and number in `linux/capability.h`.
const NEEDED: [(&str, u32); 2] = [("BPF", 39), ("PERFMON", 38)];

/// The capabilities of this process, a bit each.
pub(crate) fn effective_capabilities() -> Option<u64> {
    Some(procfs::process::Process::myself().ok()?.status().ok()?.capeff)
}

/// Whether a set of capabilities lets this one's holder do what it is for.
pub(crate) fn holds(effective: u64, number: u32) -> bool {
    let has = |number: u32| effective >> number & 1 == 1;
    // CAP_SYS_ADMIN includes what CAP_BPF and CAP_PERFMON allow.
    has(number) || (number >= 38 && has(SYS_ADMIN))
}

/// The lockdown mode, if it can be read: the bracketed word of `none [integrity] confidentiality`.
pub(crate) fn lockdown() -> Option<String> {
    let modes = std::fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    bracketed(&modes).map(str::to_owned)
}

fn bracketed(modes: &str) -> Option<&str> {
    modes.split(['[', ']']).nth(1)
}

/// What stands in the way of any hook, and how that is mended.
pub(crate) fn in_the_way() -> Option<String> {
    if lockdown().as_deref() == Some("confidentiality") {
        return Some(
            "the kernel's lockdown mode is confidentiality, in which no program may read the kernel's \
             memory; boot with `lockdown=integrity` or without lockdown"
                .into(),
        );
    }
    let effective = effective_capabilities()?;
    let missing: Vec<_> = NEEDED
        .iter()
        .filter(|(_, number)| !holds(effective, *number))
        .map(|(name, _)| *name)
        .collect();
    (!missing.is_empty()).then(|| {
        format!(
            "this process lacks the capability {}; give it that, or run it as root",
            missing.join(" and ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_of_lockdown_is_in_brackets() {
        assert_eq!(bracketed("none [integrity] confidentiality\n"), Some("integrity"));
        assert_eq!(bracketed("none\n"), None);
    }

    #[test]
    fn the_old_capability_includes_those_split_off_it() {
        assert!(holds(1 << SYS_ADMIN, 39) && holds(1 << 38, 38));
        assert!(!holds(1 << SYS_ADMIN, 19) && !holds(1 << 38, 39));
    }
}
