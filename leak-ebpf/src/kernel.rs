//! Reads the kernel's memory and, for the system call under way, the process's. Nothing else does,
//! but for the copying of stacks.

pub(crate) mod calls;
pub(crate) mod clock;
pub(crate) mod payload;
pub(crate) mod sock;
pub(crate) mod task;
