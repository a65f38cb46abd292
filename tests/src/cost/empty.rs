//! A BPF program that does nothing: the cost that every program has.

use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};

use crate::bpf::bpf;

/// Commands of bpf(2), from include/uapi/linux/bpf.h.
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_RAW_TRACEPOINT_OPEN: libc::c_int = 17;
const BPF_PROG_TYPE_RAW_TRACEPOINT: u32 = 17;

/// `r0 = 0; exit`
const NOTHING: [u64; 2] = [0x0000_0000_0000_00b7, 0x0000_0000_0000_0095];

/// The program's name, as the kernel shows it.
pub(super) const NAME: &str = "empty";

/// The loaded program, attached until this is dropped.
pub(super) struct Empty {
    _program: OwnedFd,
    _link: OwnedFd,
}

/// The first fields of `union bpf_attr` for BPF_PROG_LOAD.
#[repr(C)]
struct Load {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// `union bpf_attr` for BPF_RAW_TRACEPOINT_OPEN.
#[repr(C)]
struct Attach {
    tracepoint: u64,
    program: u32,
    padding: u32,
}

impl Empty {
    /// Loads the program and attaches it to a tracepoint.
    pub(super) fn attach(tracepoint: &std::ffi::CStr) -> Result<Self> {
        let mut name = [0; 16];
        name[..NAME.len()].copy_from_slice(NAME.as_bytes());
        let load = Load {
            kind: BPF_PROG_TYPE_RAW_TRACEPOINT,
            instruction_count: 2,
            instructions: NOTHING.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log: 0,
            kernel_version: 0,
            flags: 0,
            name,
        };
        // SAFETY: the attributes' pointers are valid during the call.
        let program =
            unsafe { bpf(BPF_PROG_LOAD, &load) }.context("Cannot load an empty program")?;
        let attach = Attach {
            tracepoint: tracepoint.as_ptr() as u64,
            program: program.as_raw_fd().cast_unsigned(),
            padding: 0,
        };
        // SAFETY: the attributes' pointers are valid during the call.
        let link = unsafe { bpf(BPF_RAW_TRACEPOINT_OPEN, &attach) }
            .with_context(|| format!("Cannot attach an empty program to {tracepoint:?}"))?;
        Ok(Self { _program: program, _link: link })
    }
}
