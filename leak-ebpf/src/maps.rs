//! All maps, and the constants that are set when the programs are loaded.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf, Stack};
use leak_common::config::Config;
use leak_common::connection::{Connection, FirstBytes, Uses};
use leak_common::event::{OpenedWithStack, counter};
use leak_common::layout::Layout;
use leak_common::stack::{MAX_STACK, SHORT_STACK, StackProfile, StackRecord};

/// Settings of this run. Zeroes until the collector sets them when it loads the programs; frozen
/// from then on, so the verifier drops the branches that they rule out.
#[unsafe(no_mangle)]
pub(crate) static CONFIG: Config = bytemuck::zeroed();

/// Offsets in this kernel's structures. Zeroes until the collector sets them from the kernel's BTF.
#[unsafe(no_mangle)]
pub(crate) static LAYOUT: Layout = bytemuck::zeroed();

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

/// One entry: the time at which the collector was last woken for `EVENTS`.
#[map]
pub(crate) static WOKEN: Array<u64> = Array::with_max_entries(1, 0);

/// Counters and state of each connection. Mapped into the collector, which reads it without a
/// system call. Its length is set at load.
#[map]
pub(crate) static CONNECTIONS: Array<Connection> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The first bytes of each connection, by the same index. Not mapped: they are read once. Its
/// length is set at load.
#[map]
pub(crate) static FIRST_BYTES: Array<FirstBytes> = Array::with_max_entries(1, 0);

/// The latest uses of each connection, by the same index, when uses are kept. Mapped like
/// `CONNECTIONS`. Its length is set at load.
#[map]
pub(crate) static USES: Array<Uses> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The flight recorder: stacks by [`RecordNumber`](leak_common::stack::RecordNumber). The maps'
/// lengths are set at load.
#[map]
pub(crate) static SHORT_RECORDS: HashMap<u32, StackRecord<SHORT_STACK>> =
    HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// The longer ones.
#[map]
pub(crate) static LONG_RECORDS: HashMap<u32, StackRecord<MAX_STACK>> =
    HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// One entry, which stays empty: new records are copies of it.
#[map]
pub(crate) static EMPTY_RECORD: Array<StackRecord<MAX_STACK>> = Array::with_max_entries(1, 0);

/// Free slots of `CONNECTIONS`, filled by the collector. Its length is set at load.
#[map]
pub(crate) static FREE_SLOTS: Stack<u32> = Stack::with_max_entries(1, 0);

/// The slot of a socket in `CONNECTIONS`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Handle {
    /// The slot's index plus one; 0: none yet.
    pub(crate) slot_plus_one: u32,
}

/// The slot of a socket, kept in the socket itself.
#[btf_map]
pub(crate) static HANDLES: SkStorage<Handle> = SkStorage::new();

/// The slot of a socket by its cookie, for kprobes, which cannot access a socket's storage. Its
/// length is set at load.
#[map]
pub(crate) static SLOTS: HashMap<u64, u32> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// The traced processes, when only some are. The value is 1 for those that the user named, 2 for
/// those that a traced one forked.
#[map]
pub(crate) static PIDS: HashMap<u32, u32> = HashMap::with_max_entries(16384, BPF_F_NO_PREALLOC);

/// What the collector has learnt about processes' stacks.
#[map]
pub(crate) static PROFILES: HashMap<u32, StackProfile> =
    HashMap::with_max_entries(16384, BPF_F_NO_PREALLOC);

/// The time spent on stacks in the current second.
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

/// Scratch memory for an event with a stack: a ring buffer entry would have to be reserved at its
/// greatest length. Used by one program only, which never runs twice at once on a processor.
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
    /// Receiving: how many of the bytes that it has copied are counted.
    pub(crate) counted: u32,
    /// Which of the two it is.
    pub(crate) direction: Direction,
}

/// Whether a call sends or receives. As wide as a word, so that [`Call`] has no padding.
#[repr(u64)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// `tcp_sendmsg`.
    Send,
    /// `tcp_recvmsg`.
    Receive,
}

/// Calls by thread, for the hooks that see their results. No hook sees a receiving call return, so
/// its entry stays until the thread's next call, or until room is needed.
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
