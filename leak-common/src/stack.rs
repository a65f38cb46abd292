//! A thread's user stack as the kernel programs copy it: registers and bytes, unwound later.

use crate::plain;

/// Most bytes of a stack that are ever copied.
pub const MAX_STACK: usize = 30 * 1024;
/// What a record takes besides the stack's bytes: its header, and what the kernel adds to an entry of a hash
/// map (`struct htab_elem`, the key, a link).
const AROUND: usize = size_of::<StackHeader>() + 48 + 8 + 8;
/// Most bytes of a stack in a short record, which fills a block of the kernel's memory: their sizes are powers
/// of two. A long one has room for [`MAX_STACK`].
pub const SHORT_STACK: usize = 16 * 1024 - AROUND;
/// Stacks are copied in chunks of this many bytes, until one fails. Half a page: each read costs as much
/// as the copying of some hundred bytes, and one that fails costs a page fault.
pub const STACK_CHUNK: usize = 2048;
/// How many registers functions preserve besides stack and frame pointer.
pub const PRESERVED: usize = 5;
/// Where in a goroutine's descriptor (Go's `runtime.g`) the copied window begins.
pub const GOROUTINE_WINDOW_START: usize = 128;
/// Length of that window; every release since Go 1.17 keeps the goroutine's id inside it.
pub const GOROUTINE_WINDOW: usize = 64;

/// Most CPython frames that are noted of one stack.
pub const MAX_PYTHON_FRAMES: usize = 48;
/// Bytes of a CPython frame that are read at once, at most: whatever the release, everything that is
/// noted lies in a stretch of this length.
pub const PYTHON_WINDOW: usize = 96;
/// In the map of profiles, the key of the one that is tried at `connect()` in processes without their
/// own: no process has this number.
pub const ANY_PROCESS: u32 = 0;
/// Says "there is none" in [`PythonProfile`].
pub const ABSENT: u32 = u32::MAX;

/// A function call of the CPython interpreter.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PythonFrame {
    /// Address of its code object.
    pub code: u64,
    /// Where in the code it is, as the release keeps it: an address or, in the lower half, an index.
    pub instruction: u64,
}
plain!(PythonFrame, 16);

/// What is known of a copied stack besides its bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct StackHeader {
    /// Odd while the kernel writes, even when the record is whole.
    pub sequence: u64,
    /// Cookie of the connection that was opened or used.
    pub cookie: u64,
    /// Number of the request this stack belongs to, from 1; 0 for `connect()`.
    pub request: u64,
    /// When it was taken, nanoseconds of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// Start time of the process, nanoseconds of `CLOCK_BOOTTIME`.
    pub process_start_ns: u64,
    /// Where the stack of the process's first thread began when the process executed its program: tells
    /// that program from what the process executed before and after; 0: unknown.
    pub image: u64,
    /// Instruction pointer.
    pub ip: u64,
    /// Stack pointer: the address of the first copied byte.
    pub sp: u64,
    /// Frame pointer.
    pub bp: u64,
    /// The other registers that functions preserve: `rbx`, then `r12` to `r15`.
    pub preserved: [u64; PRESERVED],
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// How many bytes were copied.
    pub len: u32,
    /// How many bytes were wanted, as far as the record has room for them; fewer copied means that the stack
    /// ended (or could not be read).
    pub wanted: u32,
    /// Bytes of the goroutine's descriptor from [`GOROUTINE_WINDOW_START`] on, for a program that is
    /// known to be written in Go and at `connect()`; otherwise zeroes or noise.
    pub goroutine: [u8; GOROUTINE_WINDOW],
    /// How many of `python` are valid.
    pub python_len: u32,
    /// 1: they are all that the thread has; 0: there are more, or they could not be read, or the
    /// process does not run CPython.
    pub python_whole: u32,
    /// [`PythonProfile::tag`] of the profile that led to them.
    pub python_tag: u32,
    /// Fills up the structure; always 0.
    pub reserved: u32,
    /// The interpreter's calls, innermost first.
    pub python: [PythonFrame; MAX_PYTHON_FRAMES],
}
plain!(StackHeader, (9 + PRESERVED) * 8 + 4 * 4 + GOROUTINE_WINDOW + 16 + 16 * MAX_PYTHON_FRAMES);

/// The flight recorder's record of one connection: the stack of its latest recorded request, or as much of it
/// as the record has room for.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct StackRecord<const N: usize> {
    /// Registers and identity.
    pub header: StackHeader,
    /// Stack bytes from `header.sp` upward; the first `header.len` are valid.
    pub bytes: [u8; N],
}
plain!(StackRecord<SHORT_STACK>, size_of::<StackHeader>() + SHORT_STACK);
plain!(StackRecord<MAX_STACK>, size_of::<StackHeader>() + MAX_STACK);

/// Where a process's CPython keeps the calls of the running thread. All offsets are in bytes.
///
/// From the thread register to the thread's slot for Python, there to its `PyThreadState`, on to its
/// current frame, and from frame to frame outward.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PythonProfile {
    /// 1: the process runs CPython, and what follows is known.
    pub present: u32,
    /// Tells this profile from others. What was found through another than the process's own means
    /// nothing, though it may look right.
    pub tag: u32,
    /// From the thread register, the address of the table of slots; [`ABSENT`]: the slots themselves
    /// lie there.
    pub slots: u32,
    /// The slot with the address of the `PyThreadState`, from the table or from the thread register.
    pub slot: u32,
    /// In `PyThreadState`, what leads to the current frame.
    pub frame: u32,
    /// In the structure that `frame` leads to, the address of the current frame; [`ABSENT`]: `frame`
    /// leads straight to it.
    pub control_frame: u32,
    /// In a frame, the start of the stretch that is read.
    pub window: u32,
    /// The length of that stretch, a multiple of 8, at most [`PYTHON_WINDOW`].
    pub window_len: u32,
    /// In the stretch, the address of the code object; a multiple of 8.
    pub code: u32,
    /// In the stretch, the instruction; a multiple of 8.
    pub instruction: u32,
    /// In the stretch, the address of the caller's frame; a multiple of 8.
    pub previous: u32,
    /// In the stretch, the byte that says who owns the frame.
    pub owner: u32,
    /// The owner of frames that are no function calls; [`ABSENT`], which is no byte's value: there
    /// are no such frames.
    pub foreign_owner: u32,
}
plain!(PythonProfile, 52);

/// What the collector has learnt about a process and tells the kernel programs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StackProfile {
    /// Bytes of stack to copy, at most [`MAX_STACK`]; 0: nothing was learnt, the default applies.
    pub stack_bytes: u32,
    /// 1: it is written in Go, so its threads have goroutines. Elsewhere the attempt to find one ends
    /// in a page fault, which costs more than the stack.
    pub goroutines: u32,
    /// Whether it runs CPython, and where that keeps its calls. In other processes the attempt to
    /// find any would likewise end in a page fault.
    pub python: PythonProfile,
}
plain!(StackProfile, 8 + 52);
