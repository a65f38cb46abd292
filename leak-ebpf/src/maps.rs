//! Every map, and every constant that is set when the programs are loaded.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf, Stack};
use leak_common::config::{Config, MAX_PORTS};
use leak_common::connection::{Connection, FirstBytes, Uses};
use leak_common::event::{OpenedWithStack, counter};
use leak_common::layout::Layout;
use leak_common::stack::{MAX_STACK, SHORT_STACK, StackProfile, StackRecord};

/// Settings of this run. Frozen at load, so the verifier drops the branches they rule out.
#[unsafe(no_mangle)]
pub(crate) static CONFIG: Config = Config {
    ports: [0; MAX_PORTS],
    port_count: 0,
    filter_pids: 0,
    stack_bytes: 8192,
    max_connections: 1,
    drop_one_in: 0,
    uses: 0,
    stack_budget_ns: 0,
};

/// This kernel's structures.
#[unsafe(no_mangle)]
pub(crate) static LAYOUT: Layout = Layout {
    sk_dport: 12,
    sk_num: 14,
    sk_family: 16,
    sk_rcv_saddr: 4,
    sk_daddr: 0,
    sk_v6_rcv_saddr: 72,
    sk_v6_daddr: 56,
    sk_cookie: 96,
    sk_protocol: 0,
    sk_err: 0,
    tcp_copied_seq: 0,
    tcp_rcv_nxt: 0,
    task_fsbase: 0,
    task_pid: 0,
    task_tgid: 0,
    task_group_leader: 0,
    task_start_boottime: 0,
    task_io_uring: 0,
    task_files: 0,
    task_mm: 0,
    mm_start_stack: 0,
    files_fdt: 0,
    fdtable_fd: 0,
    file_private_data: 0,
    socket_sk: 0,
    regs_ip: 128,
    regs_sp: 152,
    regs_bp: 32,
    regs_bx: 40,
    regs_r12: 24,
    regs_r13: 16,
    regs_r14: 8,
    regs_r15: 0,
    regs_syscall: 120,
    regs_arg0: 112,
    regs_arg1: 104,
    regs_arg2: 96,
};

/// Reads one field of [`CONFIG`] or [`LAYOUT`]. Volatile, because their values are replaced after
/// compilation.
macro_rules! constant {
    ($global:ident . $field:ident) => {{
        // SAFETY: the reference is to an initialised static.
        unsafe { core::ptr::read_volatile(&raw const $crate::maps::$global.$field) }
    }};
}
pub(crate) use constant;

/// Rare events, in order. Its size is set at load.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// One entry: when the collector was last woken for `EVENTS`.
#[map]
pub(crate) static WOKEN: Array<u64> = Array::with_max_entries(1, 0);

/// Counters and state of each connection. Mapped into the collector, which reads it without a
/// system call. Its length is set at load.
#[map]
pub(crate) static CONNECTIONS: Array<Connection> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// How each connection's dialogue began, by the same index. Not mapped: it is read once. Its length is
/// set at load.
#[map]
pub(crate) static FIRST_BYTES: Array<FirstBytes> = Array::with_max_entries(1, 0);

/// The latest uses of the connection with the same index, when that is asked for. Mapped like
/// `CONNECTIONS`. Its length is set at load.
#[map]
pub(crate) static USES: Array<Uses> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The flight recorder: stacks by number. A connection has as many numbers as stacks are kept of it, from
/// that of its slot times as many on: the latest request's, followed by those of the kept uses, if any. The
/// maps' lengths are set at load.
#[map]
pub(crate) static SHORT_RECORDS: HashMap<u32, StackRecord<SHORT_STACK>> =
    HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// Longer ones.
#[map]
pub(crate) static LONG_RECORDS: HashMap<u32, StackRecord<MAX_STACK>> =
    HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// One entry, which stays empty: what a new record is made of.
#[map]
pub(crate) static EMPTY_RECORD: Array<StackRecord<MAX_STACK>> = Array::with_max_entries(1, 0);

/// Free slots of `CONNECTIONS`, filled by the collector. Its length is set at load.
#[map]
pub(crate) static FREE_SLOTS: Stack<u32> = Stack::with_max_entries(1, 0);

/// Which slot of `CONNECTIONS` a socket has.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Handle {
    /// The slot's index plus one; 0: none yet.
    pub(crate) slot_plus_one: u32,
}

/// The slot of a socket, kept in the socket itself.
#[btf_map]
pub(crate) static HANDLES: SkStorage<Handle> = SkStorage::new();

/// The slot of a socket by its cookie, for kprobes, which may not reach into sockets' storage. Its
/// length is set at load.
#[map]
pub(crate) static SLOTS: HashMap<u64, u32> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// Processes that are traced, when only some are. The value is 1 for those that were asked for, 2 for
/// those that a traced one forked.
#[map]
pub(crate) static PIDS: HashMap<u32, u32> = HashMap::with_max_entries(16384, BPF_F_NO_PREALLOC);

/// What the collector has learnt about processes' stacks.
#[map]
pub(crate) static PROFILES: HashMap<u32, StackProfile> =
    HashMap::with_max_entries(16384, BPF_F_NO_PREALLOC);

/// What was spent on stacks in the current second.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Budget {
    /// When the current second began.
    pub(crate) began_ns: u64,
    /// Nanoseconds spent since.
    pub(crate) spent_ns: u64,
}

/// One entry: the budget for copying stacks, shared by all processors.
#[map]
pub(crate) static BUDGET: Array<Budget> = Array::with_max_entries(1, 0);

/// See [`leak_common::event::counter`].
#[map]
pub(crate) static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counter::COUNT, 0);

/// Where an event with a stack is put together: a ring buffer entry would have to be reserved at
/// its greatest length. Used by one program only, which never runs twice at once on a processor.
#[map]
pub(crate) static SCRATCH: PerCpuArray<OpenedWithStack> = PerCpuArray::with_max_entries(1, 0);

/// A thread's latest call to `tcp_sendmsg` or `tcp_recvmsg`, as its kprobe saw it begin.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Call {
    /// `struct sock *`.
    pub(crate) sock: u64,
    /// Receiving: the socket's `copied_seq` when the call began.
    pub(crate) copied_seq: u32,
    /// Receiving: how many of the bytes that it has copied were counted.
    pub(crate) counted: u32,
    /// 1: it sends; 0: it receives.
    pub(crate) sends: u64,
}

/// Calls by thread, for the hooks that see what came of them. Nothing tells of a receiving call's
/// return, so its entry stays until the thread's next call, or until room is needed.
#[map]
pub(crate) static CALLS: LruHashMap<u64, Call> = LruHashMap::with_max_entries(16384, 0);

/// Adds one to a counter of this processor.
#[inline(always)]
pub(crate) fn count(index: u32) {
    if let Some(value) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: the map's value is this processor's own.
        unsafe { *value += 1 }
    }
}

/// Raises a counter of this processor to at least `value`.
#[inline(always)]
pub(crate) fn raise(index: u32, value: u64) {
    if let Some(highest) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: the map's value is this processor's own.
        unsafe {
            if *highest < value {
                *highest = value;
            }
        }
    }
}
