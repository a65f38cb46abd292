//! Files that exist in memory only.

use std::fs::File;
use std::os::fd::FromRawFd;

/// An empty file in memory that no other process has.
pub(crate) fn memory_file() -> Option<File> {
    // SAFETY: the name is a zero-terminated literal.
    let fd = unsafe { libc::memfd_create(c"symbols".as_ptr(), libc::MFD_CLOEXEC) };
    // SAFETY: the kernel has just returned this descriptor, and nobody else owns it.
    (fd >= 0).then(|| unsafe { File::from_raw_fd(fd) })
}
