//! Whether PIDs here are those that the kernel programs see.

use std::os::unix::fs::MetadataExt as _;

use crate::sources::kernel::error::KernelError;

/// Inode of the initial PID namespace: `PROC_PID_INIT_INO` in `include/linux/proc_ns.h`.
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Checks that this process is in the initial PID namespace.
///
/// It is safe to trust `/proc` here: in a `/proc` of another namespace, `/proc/self` is either this
/// process or missing.
///
/// # Errors
///
/// When it is in another one, or `/proc` does not tell.
pub fn check_pid_namespace() -> Result<(), KernelError> {
    let namespace = std::fs::metadata("/proc/self/ns/pid").map_err(KernelError::ForeignProc)?;
    if namespace.ino() == INITIAL_PID_NAMESPACE { Ok(()) } else { Err(KernelError::PidNamespace) }
}
