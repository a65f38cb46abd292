//! The BPF programs that a process has loaded, as the kernel tells.

use std::fs;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

use anyhow::{Context, Result};

/// `BPF_PROG_GET_FD_BY_ID` of `include/uapi/linux/bpf.h`.
const PROG_GET_FD_BY_ID: libc::c_long = 13;

/// `BPF_ENABLE_STATS`.
const ENABLE_STATS: libc::c_long = 32;

/// Ids of the programs that a process holds by its file descriptors.
///
/// # Errors
///
/// When the process is gone.
pub fn programs_of(pid: u32) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).context("the process is gone")? {
        // A descriptor may have been closed in the meantime.
        let Ok(text) = fs::read_to_string(entry?.path()) else {
            continue;
        };
        let id: Option<u32> =
            text.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok());
        ids.extend(id);
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// Whether the kernel has none of these programs any more.
///
/// # Errors
///
/// When the kernel does not say.
pub fn none_exist(ids: &[u32]) -> Result<bool> {
    for id in ids {
        if exists(*id)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes the kernel count the runs of BPF programs as long as the descriptor is open.
///
/// # Errors
///
/// When the kernel refuses.
pub fn count_runs() -> Result<OwnedFd> {
    // `union bpf_attr` begins with the type: run time.
    let attributes: u32 = 0;
    // SAFETY: the kernel reads the attributes, whose size is given, and writes nothing.
    let descriptor = unsafe {
        libc::syscall(libc::SYS_bpf, ENABLE_STATS, &raw const attributes, size_of_val(&attributes))
    };
    if descriptor < 0 {
        return Err(io::Error::last_os_error()).context("the kernel does not count runs");
    }
    // SAFETY: the descriptor was just opened and is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(descriptor)?) })
}

fn exists(id: u32) -> Result<bool> {
    // `union bpf_attr` begins with the id, followed by `next_id` and `open_flags`.
    let attributes = [id, 0, 0];
    // SAFETY: the kernel reads the attributes, whose size is given, and writes nothing.
    let descriptor = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROG_GET_FD_BY_ID,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    if descriptor < 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ENOENT) {
            Ok(false)
        } else {
            Err(error.into())
        };
    }
    // SAFETY: the descriptor was just opened and is nobody else's.
    unsafe { libc::close(i32::try_from(descriptor)?) };
    Ok(true)
}
