//! Memory and file descriptors of this process.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Has the allocator give memory back to the kernel as soon as it is free. To be called before
/// there are other threads.
///
/// Every interval makes lists of all connections and drops them. By default glibc's allocator keeps
/// such memory, and a share of it for each thread: with 100,000 connections that is a sixth of what
/// is resident.
pub fn return_memory_promptly() {
    #[cfg(target_env = "gnu")]
    {
        /// Larger allocations are mapped by themselves, and a larger free end of the heap is
        /// returned.
        const LARGE: libc::c_int = 128 * 1024;
        let settings = [
            (libc::M_ARENA_MAX, 1),
            (libc::M_MMAP_THRESHOLD, LARGE),
            (libc::M_TRIM_THRESHOLD, LARGE),
        ];
        for (parameter, value) in settings {
            // SAFETY: the call takes numbers only. If it refuses one, nothing changes.
            unsafe { libc::mallopt(parameter, value) };
        }
    }
}

/// Raises the limit on open files as far as allowed: binaries are kept open, so that stacks of
/// processes that have exited still resolve.
pub(super) fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        log::debug!("the limit on open files stays as it is: {error}");
    }
}
