//! The BPF programs that a process has loaded.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context, Result, ensure};

/// `BPF_PROG_GET_FD_BY_ID` of `include/uapi/linux/bpf.h`.
const PROG_GET_FD_BY_ID: libc::c_int = 13;

/// `BPF_OBJ_GET_INFO_BY_FD`.
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;

/// `BPF_ENABLE_STATS`.
const ENABLE_STATS: libc::c_int = 32;

/// Ids of the BPF programs for which a process has file descriptors.
pub fn programs_of(pid: u32) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).context("the process is gone")? {
        // The process may have closed the descriptor since `read_dir`.
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

/// Whether the kernel has unloaded all of these programs.
pub fn none_exist(ids: &[u32]) -> Result<bool> {
    for id in ids {
        if exists(*id)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes the kernel count the runs of BPF programs as long as the descriptor is open.
pub fn count_runs() -> Result<OwnedFd> {
    // `union bpf_attr` begins with the type of statistics; 0 is the run time.
    let attributes: u32 = 0;
    // SAFETY: the attributes contain no pointers.
    unsafe { bpf(ENABLE_STATS, &attributes) }.context("the kernel does not count runs")
}

/// The kernel's run statistics of one program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runs {
    /// The program's id.
    pub id: u32,
    /// Its name, at most 15 characters.
    pub name: String,
    /// Number of runs while statistics were enabled.
    pub count: u64,
    /// Total time of these runs.
    pub nanoseconds: u64,
}

/// Run statistics of all programs that a process holds.
pub fn runs_of(pid: u32) -> Result<Vec<Runs>> {
    programs_of(pid)?.into_iter().map(runs).collect()
}

/// `struct bpf_prog_info`, up to the last field that is read here.
#[repr(C)]
struct Info {
    kind: u32,
    id: u32,
    before_name: [u64; 7],
    name: [u8; 16],
    between: [u64; 14],
    run_time_ns: u64,
    run_count: u64,
}

/// `union bpf_attr` for BPF_OBJ_GET_INFO_BY_FD.
#[repr(C)]
struct Ask {
    descriptor: u32,
    len: u32,
    info: u64,
}

fn runs(id: u32) -> Result<Runs> {
    let program = open(id)?;
    // SAFETY: every byte pattern is a valid Info.
    let mut info: Info = unsafe { std::mem::zeroed() };
    let ask = Ask {
        descriptor: program.as_raw_fd().cast_unsigned(),
        len: u32::try_from(size_of::<Info>())?,
        info: &raw mut info as u64,
    };
    // SAFETY: the kernel writes at most as many bytes as the attributes say.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, OBJ_GET_INFO_BY_FD, &raw const ask, size_of_val(&ask))
    };
    ensure!(result == 0, "the kernel gives no information on program {id}");
    let name = info.name.split(|byte| *byte == 0).next().unwrap_or_default();
    let name = String::from_utf8_lossy(name).into_owned();
    Ok(Runs { id, name, count: info.run_count, nanoseconds: info.run_time_ns })
}

fn exists(id: u32) -> Result<bool> {
    match open(id) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn open(id: u32) -> io::Result<OwnedFd> {
    // `union bpf_attr` begins with the id, followed by `next_id` and `open_flags`.
    let attributes = [id, 0, 0];
    // SAFETY: the attributes contain no pointers.
    unsafe { bpf(PROG_GET_FD_BY_ID, &attributes) }
}

/// bpf(2), for commands that return a descriptor.
///
/// # Safety
///
/// Pointers in the attributes must be valid for this command.
pub(crate) unsafe fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the pointer is to `size_of::<T>()` readable bytes; the caller guarantees the rest.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>())
    };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just created this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
