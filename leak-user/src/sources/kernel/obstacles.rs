//! What can keep every kernel program from loading, besides the kernel's age: lockdown, and missing
//! privileges.

use crate::sources::kernel::capabilities;

/// The lockdown mode; `None` if securityfs is not mounted.
pub(crate) fn lockdown() -> Option<String> {
    let modes = std::fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    bracketed(&modes).map(str::to_owned)
}

/// The bracketed word of `none [integrity] confidentiality`.
fn bracketed(modes: &str) -> Option<&str> {
    modes.split(['[', ']']).nth(1)
}

/// The obstacle to loading any program, and how to remove it.
pub(crate) fn in_the_way() -> Option<String> {
    if lockdown().as_deref() == Some("confidentiality") {
        return Some(
            "the kernel's lockdown mode is confidentiality, in which BPF programs cannot read kernel \
             memory; boot with `lockdown=integrity` or without lockdown"
                .into(),
        );
    }
    let missing = capabilities::missing(capabilities::effective()?);
    (!missing.is_empty()).then(|| {
        format!(
            "this process lacks the capability {}; grant it, or run it as root",
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
}
