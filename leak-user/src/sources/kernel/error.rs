//! Why the kernel programs cannot run, in sentences that say what to do.

use std::io;

use crate::sources::kernel::btf::BtfError;
use crate::sources::kernel::capabilities;
use crate::sources::kernel::hooks::{Hook, Purpose};

/// Why the kernel programs cannot run.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The binary was built without the BPF toolchain.
    #[error(
        "this binary was built without its kernel programs; build it with `cargo xtask build`, \
         which installs the BPF toolchain"
    )]
    NotBuilt,
    /// The kernel's BTF is missing or incomplete.
    #[error(transparent)]
    Types(#[from] BtfError),
    /// aya cannot read the kernel's BTF.
    #[error("this kernel's BTF cannot be used: {0}")]
    Btf(#[source] aya::BtfError),
    /// The kernel refused a map or a program because of missing privileges.
    #[error(
        "the kernel does not let this process use BPF ({0}); run it as root (`sudo pgsocktrace …`), \
         or give it the capabilities {all}",
        all = capabilities::names()
    )]
    Privileges(String),
    /// This process is not in the initial PID namespace, whose PIDs the kernel programs see.
    #[error(
        "this process is not in the host's PID namespace, so its PIDs differ from those that the \
         kernel programs see; run it with `hostPID: true` in Kubernetes or `--pid=host` in Docker"
    )]
    PidNamespace,
    /// `/proc` is not that of this process's PID namespace.
    #[error("/proc/self/ns/pid cannot be read ({0}); mount the /proc of the host's PID namespace")]
    ForeignProc(#[source] io::Error),
    /// The kernel refused the object for another reason.
    #[error("the kernel programs cannot be loaded: {0}")]
    Load(#[source] Box<aya::EbpfError>),
    /// The object file does not match this binary.
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
        /// The system's error.
        source: io::Error,
    },
    /// A map could not be used.
    #[error("a map of the kernel programs cannot be used: {0}")]
    Map(#[from] aya::maps::MapError),
    /// No hook loads for a purpose that tracing needs.
    #[error(
        "no hook for `{purpose}` loads on this kernel, and without one {}; {}. `pgsocktrace doctor` \
         tells more",
        .purpose.without(),
        .in_the_way.clone().unwrap_or_else(|| list(.said))
    )]
    NoHook {
        /// The purpose.
        purpose: Purpose,
        /// The hooks that were tried, each with the reason why it was refused.
        said: Vec<(&'static Hook, String)>,
        /// What keeps any hook from loading, and how to remove it.
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

/// The refused hooks, for a sentence.
fn list(said: &[(&'static Hook, String)]) -> String {
    let part = |(hook, why): &(&Hook, String)| {
        format!("{} needs {} and was refused: {why}", hook.label, hook.requirement)
    };
    let parts: Vec<_> = said.iter().map(part).collect();
    parts.join("; ")
}
