//! The only place that reads kernel memory.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::{
    bpf_get_current_comm, bpf_get_current_task_btf, bpf_get_socket_cookie, bpf_jiffies64,
    bpf_ktime_get_ns, bpf_skc_to_tcp_sock, bpf_task_pt_regs,
};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_probe_read_kernel};
use leak_common::config::MAX_PORTS;
use leak_common::connection::{AF_INET, AF_INET6, Caller, Tuple};

use crate::maps::{PIDS, constant};
use crate::zero::zeroed;

/// `IPPROTO_TCP`.
const TCP: u16 = 6;

/// A `struct sock *`.
#[derive(Clone, Copy)]
pub(crate) struct Sock {
    address: *const u8,
    /// The verifier knows the pointer's type: loads need no helper, and helpers accept it. A kprobe's
    /// pointer is a mere number.
    trusted: bool,
}

impl Sock {
    /// A socket that a BTF tracepoint or an fentry program was given.
    #[inline(always)]
    pub(crate) fn trusted(address: *const u8) -> Self {
        Self { address, trusted: true }
    }

    /// A socket that a kprobe was given.
    #[inline(always)]
    pub(crate) fn untrusted(address: *const u8) -> Self {
        Self { address, trusted: false }
    }

    /// Its address, if helpers accept it.
    #[inline(always)]
    pub(crate) fn for_helpers(self) -> Option<*mut core::ffi::c_void> {
        self.trusted.then_some(self.address.cast_mut().cast())
    }

    #[inline(always)]
    fn read<T: Copy + Default>(self, offset: u32) -> T {
        // SAFETY: the offset is from the kernel's BTF, so it lies inside the structure; the verifier
        // checks the load, and the helper faults safely.
        unsafe {
            let field = self.address.add(offset as usize).cast::<T>();
            if self.trusted {
                core::ptr::read_volatile(field)
            } else {
                bpf_probe_read_kernel(field).unwrap_or_default()
            }
        }
    }

    /// The kernel's identity of the socket; 0 when it has none yet and none can be made here.
    #[inline(always)]
    pub(crate) fn cookie(self) -> u64 {
        if self.trusted {
            // SAFETY: the verifier knows the pointer as a socket's.
            unsafe { bpf_get_socket_cookie(self.address.cast_mut().cast()) }
        } else {
            self.read(constant!(LAYOUT.sk_cookie))
        }
    }

    /// Whether it is a TCP socket to a traced port. The port comes first: it rules out nearly all.
    #[inline(always)]
    pub(crate) fn is_traced(self) -> bool {
        let port: u16 = self.read(constant!(LAYOUT.sk_dport));
        let mut index = 0;
        while index < MAX_PORTS {
            if index as u32 >= constant!(CONFIG.port_count) {
                return false;
            }
            if port == constant_port(index) {
                return self.is_tcp();
            }
            index += 1;
        }
        false
    }

    #[inline(always)]
    fn is_tcp(self) -> bool {
        let family = u32::from(self.read::<u16>(constant!(LAYOUT.sk_family)));
        (family == AF_INET || family == AF_INET6)
            && self.read::<u16>(constant!(LAYOUT.sk_protocol)) == TCP
    }

    /// Both ends.
    #[inline(always)]
    pub(crate) fn tuple(self) -> Tuple {
        let family = u32::from(self.read::<u16>(constant!(LAYOUT.sk_family)));
        let (local, remote) = if family == AF_INET {
            let address = |offset| [u64::from(self.read::<u32>(offset)), 0];
            (address(constant!(LAYOUT.sk_rcv_saddr)), address(constant!(LAYOUT.sk_daddr)))
        } else {
            // In two loads of a width that the verifier accepts.
            let address = |offset| [self.read(offset), self.read(offset + 8)];
            (address(constant!(LAYOUT.sk_v6_rcv_saddr)), address(constant!(LAYOUT.sk_v6_daddr)))
        };
        Tuple {
            local: in_memory_order(local),
            remote: in_memory_order(remote),
            local_port: self.read(constant!(LAYOUT.sk_num)),
            remote_port: u16::from_be(self.read(constant!(LAYOUT.sk_dport))),
            family,
        }
    }

    /// Up to where its process has read the stream.
    #[inline(always)]
    pub(crate) fn copied_seq(self) -> u32 {
        self.read(constant!(LAYOUT.tcp_copied_seq))
    }

    /// How many bytes have come that its process has not read, the stream's end counting as one; 0 where that
    /// is not to be had cheaply.
    #[inline(always)]
    pub(crate) fn unread(self) -> u32 {
        let Some(pointer) = self.for_helpers() else { return 0 };
        // SAFETY: the verifier knows the pointer as a socket's.
        let tcp = Self::trusted(unsafe { bpf_skc_to_tcp_sock(pointer) }.cast_const().cast());
        if tcp.address.is_null() {
            return 0;
        }
        // In this order: what comes, or is read by another thread, between the two makes it more.
        let read = tcp.copied_seq();
        tcp.read::<u32>(constant!(LAYOUT.tcp_rcv_nxt)).wrapping_sub(read)
    }

    /// The error that ended it, if one did.
    #[inline(always)]
    pub(crate) fn error(self) -> u32 {
        self.read(constant!(LAYOUT.sk_err))
    }
}

/// The bytes of two words, as they lie in memory.
#[inline(always)]
fn in_memory_order(words: [u64; 2]) -> [u8; 16] {
    // SAFETY: both are 16 bytes of which every pattern is valid.
    unsafe { core::mem::transmute(words) }
}

#[inline(always)]
fn constant_port(index: usize) -> u16 {
    // SAFETY: the caller keeps the index below MAX_PORTS.
    unsafe {
        core::ptr::read_volatile((&raw const crate::maps::CONFIG.ports).cast::<u16>().add(index))
    }
}

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// Counts the kernel's ticks, which are some milliseconds apart. The verifier makes it one load, where
/// [`now`] is a call of several.
#[inline(always)]
pub(crate) fn ticks() -> u32 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_jiffies64() as u32 }
}

/// The word at `offset` of the kernel's structure at `pointer`; 0 when it cannot be read.
#[inline(always)]
fn follow(pointer: u64, offset: u32) -> u64 {
    let field = (pointer as *const u8).wrapping_add(offset as usize).cast::<u64>();
    // SAFETY: the helper faults safely.
    unsafe { bpf_probe_read_kernel(field) }.unwrap_or(0)
}

/// The running task.
#[derive(Clone, Copy)]
pub(crate) struct Task(*const u8);

impl Task {
    /// A task that a tracepoint was given.
    ///
    /// # Safety
    ///
    /// `task` is a `struct task_struct *` that the verifier knows as such.
    #[inline(always)]
    pub(crate) unsafe fn given(task: *const u8) -> Self {
        Self(task)
    }

    /// Its process.
    #[inline(always)]
    pub(crate) fn process(self) -> u32 {
        self.read(constant!(LAYOUT.task_tgid))
    }

    /// Whether it is its process's first thread.
    #[inline(always)]
    pub(crate) fn is_leader(self) -> bool {
        self.read::<u32>(constant!(LAYOUT.task_pid)) == self.process()
    }

    /// The task that makes the call being traced: valid only in hooks that run in its context.
    #[inline(always)]
    pub(crate) fn current() -> Self {
        // SAFETY: the helper has no preconditions.
        Self(unsafe { bpf_get_current_task_btf() }.cast())
    }

    #[inline(always)]
    fn read<T: Copy>(self, offset: u32) -> T {
        // SAFETY: the offset is from the kernel's BTF and the verifier checks the load.
        unsafe { core::ptr::read_volatile(self.0.add(offset as usize).cast::<T>()) }
    }

    /// The thread register: where thread-local storage lies in the process.
    #[inline(always)]
    pub(crate) fn thread_register(self) -> u64 {
        self.read(constant!(LAYOUT.task_fsbase))
    }

    /// Whether it has ever used io_uring, which moves bytes under cover of whatever system call the
    /// task happens to be in.
    #[inline(always)]
    pub(crate) fn uses_io_uring(self) -> bool {
        let offset = constant!(LAYOUT.task_io_uring);
        offset != 0 && self.read::<u64>(offset) != 0
    }

    /// Whether `descriptor` is that of `sock` in its process.
    #[inline(always)]
    pub(crate) fn descriptor_is(self, descriptor: u64, sock: Sock) -> bool {
        let files = follow(self.0 as u64, constant!(LAYOUT.task_files));
        let table = follow(files, constant!(LAYOUT.files_fdt));
        let entries = follow(table, constant!(LAYOUT.fdtable_fd));
        let file = follow(entries.wrapping_add((descriptor & 0xffff_ffff) * 8), 0);
        let socket = follow(file, constant!(LAYOUT.file_private_data));
        follow(socket, constant!(LAYOUT.socket_sk)) == sock.address as u64
    }

    /// Where its process's stack began: [`StackHeader::image`](leak_common::stack::StackHeader::image).
    #[inline(always)]
    pub(crate) fn image(self) -> u64 {
        // Loaded like a task's field: the verifier knows what it leads to, and a fault reads as 0.
        let memory = Self(self.read::<*const u8>(constant!(LAYOUT.task_mm)));
        memory.read(constant!(LAYOUT.mm_start_stack))
    }

    /// When its process started, nanoseconds of `CLOCK_BOOTTIME`.
    #[inline(always)]
    pub(crate) fn process_start(self) -> u64 {
        let leader = Self(self.read::<*const u8>(constant!(LAYOUT.task_group_leader)));
        leader.read(constant!(LAYOUT.task_start_boottime))
    }

    /// The user's registers at the entry of the system call under way.
    #[inline(always)]
    pub(crate) fn registers(self) -> Registers {
        // SAFETY: the pointer is a task's.
        Registers(unsafe { bpf_task_pt_regs(self.0.cast_mut().cast()) } as *const u8)
    }
}

/// A `struct pt_regs *`: what the kernel saved of the user's registers.
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

/// The calling process and thread, but for their name, which costs a call.
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
    // SAFETY: the buffer is as long as told. On failure it stays empty.
    unsafe { bpf_get_current_comm(caller.comm.as_mut_ptr().cast(), 16) };
    caller
}

/// Whether the calling process is to be traced.
#[inline(always)]
pub(crate) fn caller_is_traced() -> bool {
    constant!(CONFIG.filter_pids) == 0 || is_listed((bpf_get_current_pid_tgid() >> 32) as u32)
}

/// Whether a process is among those to be traced.
#[inline(always)]
pub(crate) fn is_listed(tgid: u32) -> bool {
    PIDS.get_ptr(tgid).is_some()
}
