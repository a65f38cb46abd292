//! What can keep the tracer from running, in sentences that say what to do.

use std::io;

use crate::sources::kernel::btf::BtfError;
use crate::sources::kernel::hooks::{Hook, Purpose};

/// Why the kernel programs cannot run.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The binary was built where the BPF toolchain is missing.
    #[error(
        "this binary was built without its kernel programs; build it with `cargo xtask build`, \
         which installs what that takes"
    )]
    NotBuilt,
    /// The kernel's description of its types is missing, or lacks something.
    #[error(transparent)]
    Types(#[from] BtfError),
    /// aya cannot read the kernel's description.
    #[error("this kernel's BTF cannot be used: {0}")]
    Btf(#[source] aya::BtfError),
    /// The kernel refused a map or a program for want of privileges.
    #[error(
        "the kernel does not let this process use BPF ({0}); run it as root (`sudo pgsocktrace …`), \
         or give it the capabilities BPF, PERFMON, SYS_PTRACE, DAC_READ_SEARCH and SYS_ADMIN"
    )]
    Privileges(String),
    /// The kernel programs see the PIDs of the initial namespace, and this process other ones.
    #[error(
        "this process is in a PID namespace of its own, so that its PIDs are not those that the \
         kernel programs see; run it in the host's: `hostPID: true` in Kubernetes, `--pid=host` in \
         Docker"
    )]
    PidNamespace,
    /// `/proc` does not show this process.
    #[error("/proc/self/ns/pid cannot be read ({0}); mount the /proc of the host's PID namespace")]
    ForeignProc(#[source] io::Error),
    /// The kernel refused the object for another reason.
    #[error("the kernel programs cannot be loaded: {0}")]
    Load(#[source] Box<aya::EbpfError>),
    /// The object file is not the one that belongs to this binary.
    #[error("the kernel programs lack the map {name}; rebuild with `cargo xtask build`")]
    MissingMap {
        /// Its name.
        name: &'static str,
    },
    /// A map could not be mapped into memory.
    #[error("the map {name} cannot be mapped into memory: {source}")]
    Unmapped {
        /// Its name.
        name: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A map could not be used.
    #[error("a map of the kernel programs cannot be used: {0}")]
    Map(#[from] aya::maps::MapError),
    /// A purpose without which the main job cannot run has no hook.
    #[error(
        "no hook for `{purpose}` loads on this kernel, and without one {}; {}. `pgsocktrace doctor` \
         tells more",
        .purpose.without(),
        .in_the_way.clone().unwrap_or_else(|| sentence(.said))
    )]
    NoHook {
        /// What it is for.
        purpose: Purpose,
        /// What the kernel said of each hook that was tried.
        said: Vec<(&'static Hook, String)>,
        /// What would keep any hook from loading, and the mend.
        in_the_way: Option<String>,
    },
}

impl KernelError {
    /// Tells a lack of privileges from everything else that can fail when the object is loaded.
    pub(crate) fn from_load(error: aya::EbpfError) -> Self {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(current) = cause {
            if let Some(io) = current.downcast_ref::<io::Error>()
                && io.kind() == io::ErrorKind::PermissionDenied
            {
                return Self::Privileges(io.to_string());
            }
            cause = current.source();
        }
        Self::Load(Box::new(error))
    }
}

fn sentence(said: &[(&'static Hook, String)]) -> String {
    let part = |(hook, why): &(&Hook, String)| {
        format!("{} asks for {} and was refused: {why}", hook.label, hook.requirement)
    };
    let parts: Vec<_> = said.iter().map(part).collect();
    parts.join("; ")
}
