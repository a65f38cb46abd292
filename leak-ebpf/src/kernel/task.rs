//! Tasks: the calling thread, its process and registers.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::{
    bpf_get_current_comm, bpf_get_current_task_btf, bpf_task_pt_regs,
};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_probe_read_kernel};
use bytemuck::AnyBitPattern;
use leak_common::connection::Caller;

use super::sock::Sock;
use crate::maps::{PIDS, constant};
use crate::verifier::zeroed;

/// `PF_EXITING` of `task_struct.flags`, include/linux/sched.h: set before its files are closed.
const EXITING: u32 = 4;

/// A `struct task_struct *`.
#[derive(Clone, Copy)]
pub(crate) struct Task(*const u8);

impl Task {
    /// A task that a tracepoint passes.
    ///
    /// # Safety
    ///
    /// `task` is a `struct task_struct *` that the verifier knows as such.
    #[inline(always)]
    pub(crate) unsafe fn from_btf(task: *const u8) -> Self {
        Self(task)
    }

    /// The task that makes the call being traced: valid only in hooks that run in its context.
    #[inline(always)]
    pub(crate) fn current() -> Self {
        // SAFETY: the helper has no preconditions.
        Self(unsafe { bpf_get_current_task_btf() }.cast())
    }

    /// The number of its process.
    #[inline(always)]
    pub(crate) fn process(self) -> u32 {
        self.read(constant!(LAYOUT.task_tgid))
    }

    /// Whether it is exiting, by itself or killed.
    #[inline(always)]
    pub(crate) fn is_exiting(self) -> bool {
        self.read::<u32>(constant!(LAYOUT.task_flags)) & EXITING != 0
    }

    /// Whether it is the first thread of its process.
    #[inline(always)]
    pub(crate) fn is_leader(self) -> bool {
        self.read::<u32>(constant!(LAYOUT.task_pid)) == self.process()
    }

    #[inline(always)]
    fn read<T: AnyBitPattern>(self, offset: u32) -> T {
        // SAFETY: the offset is from the kernel's BTF and the verifier checks the load.
        unsafe { core::ptr::read_volatile(self.0.add(offset as usize).cast::<T>()) }
    }

    /// The structure that a field points to. Loaded like a number: the verifier knows what it
    /// points to, and reading through a null pointer yields 0.
    #[inline(always)]
    fn follow(self, offset: u32) -> Self {
        // SAFETY: as in `read`; any bits are a valid pointer.
        Self(unsafe { core::ptr::read_volatile(self.0.add(offset as usize).cast::<*const u8>()) })
    }

    /// The thread register: where thread-local storage lies in the process.
    #[inline(always)]
    pub(crate) fn thread_register(self) -> u64 {
        self.read(constant!(LAYOUT.task_fsbase))
    }

    /// Whether it has ever used io_uring, whose transfers run inside any system call of the task.
    #[inline(always)]
    pub(crate) fn uses_io_uring(self) -> bool {
        let offset = constant!(LAYOUT.task_io_uring);
        offset != 0 && self.read::<u64>(offset) != 0
    }

    /// Whether `descriptor` is that of `sock` in its process.
    #[inline(always)]
    pub(crate) fn descriptor_is(self, descriptor: u64, sock: impl Sock) -> bool {
        let files = word_at(self.0 as u64, constant!(LAYOUT.task_files));
        let table = word_at(files, constant!(LAYOUT.files_fdt));
        let entries = word_at(table, constant!(LAYOUT.fdtable_fd));
        let file = word_at(entries.wrapping_add((descriptor & 0xffff_ffff) * 8), 0);
        let socket = word_at(file, constant!(LAYOUT.file_private_data));
        word_at(socket, constant!(LAYOUT.socket_sk)) == sock.address() as u64
    }

    /// Start of its process's stack:
    /// [`StackHeader::image`](leak_common::stack::StackHeader::image).
    #[inline(always)]
    pub(crate) fn image(self) -> u64 {
        self.follow(constant!(LAYOUT.task_mm)).read(constant!(LAYOUT.mm_start_stack))
    }

    /// When its process started, nanoseconds of `CLOCK_BOOTTIME`.
    #[inline(always)]
    pub(crate) fn process_start(self) -> u64 {
        let leader = self.follow(constant!(LAYOUT.task_group_leader));
        leader.read(constant!(LAYOUT.task_start_boottime))
    }

    /// The user's registers at the entry of the system call under way.
    #[inline(always)]
    pub(crate) fn registers(self) -> Registers {
        // SAFETY: the pointer is a task's.
        Registers(unsafe { bpf_task_pt_regs(self.0.cast_mut().cast()) } as *const u8)
    }
}

/// The word at `offset` in the kernel's structure at `pointer`; 0 when it cannot be read.
#[inline(always)]
fn word_at(pointer: u64, offset: u32) -> u64 {
    let field = (pointer as *const u8).wrapping_add(offset as usize).cast::<u64>();
    // SAFETY: the helper faults safely.
    unsafe { bpf_probe_read_kernel(field) }.unwrap_or(0)
}

/// A `struct pt_regs *`: the user's registers as the kernel saved them.
#[derive(Clone, Copy)]
pub(crate) struct Registers(*const u8);

impl Registers {
    /// The register at `offset`, a field of [`leak_common::layout::Layout`].
    #[inline(always)]
    pub(crate) fn at(self, offset: u32) -> u64 {
        // SAFETY: the offset is from the kernel's BTF and the verifier checks the load.
        unsafe { core::ptr::read_volatile(self.0.add(offset as usize).cast::<u64>()) }
    }
}

/// The calling process and thread without the thread's name, which costs a call.
#[inline(always)]
pub(crate) fn nameless_caller() -> Caller {
    let ids = bpf_get_current_pid_tgid();
    let mut caller = MaybeUninit::uninit();
    let caller: &mut Caller = zeroed(&mut caller);
    caller.tgid = (ids >> 32) as u32;
    caller.tid = ids as u32;
    caller.process_start_ns = Task::current().process_start();
    *caller
}

/// The calling process and thread.
#[inline(always)]
pub(crate) fn caller() -> Caller {
    let mut caller = nameless_caller();
    // SAFETY: the length is the buffer's. On failure it stays empty.
    unsafe { bpf_get_current_comm(caller.comm.as_mut_ptr().cast(), caller.comm.len() as u32) };
    caller
}

/// Whether the calling process is to be traced.
#[inline(always)]
pub(crate) fn caller_is_traced() -> bool {
    constant!(CONFIG.filter_pids) == 0 || is_listed((bpf_get_current_pid_tgid() >> 32) as u32)
}

/// Whether a process is in the list of those to be traced.
#[inline(always)]
pub(crate) fn is_listed(tgid: u32) -> bool {
    PIDS.get_ptr(tgid).is_some()
}
