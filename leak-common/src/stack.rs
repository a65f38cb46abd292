//! A thread's user stack as the kernel programs copy it: registers and bytes, unwound later.

use crate::plain;

/// Most bytes of a stack that are ever copied.
pub const MAX_STACK: usize = 30 * 1024;
/// Stacks are copied in chunks of this many bytes, until one fails.
pub const STACK_CHUNK: usize = 1024;
/// Where in a goroutine's descriptor (Go's `runtime.g`) the copied window begins.
pub const GOROUTINE_WINDOW_START: usize = 128;
/// Length of that window; every release since Go 1.17 keeps the goroutine's id inside it.
pub const GOROUTINE_WINDOW: usize = 64;

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
    /// Instruction pointer.
    pub ip: u64,
    /// Stack pointer: the address of the first copied byte.
    pub sp: u64,
    /// Frame pointer.
    pub bp: u64,
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// How many bytes were copied.
    pub len: u32,
    /// How many bytes were wanted; fewer copied means that the stack ended (or could not be read).
    pub wanted: u32,
    /// Bytes of the goroutine's descriptor from [`GOROUTINE_WINDOW_START`] on, for a program that is
    /// known to be written in Go and at `connect()`; otherwise zeroes or noise.
    pub goroutine: [u8; GOROUTINE_WINDOW],
}
plain!(StackHeader, 8 * 8 + 4 * 4 + GOROUTINE_WINDOW);

/// The flight recorder's slot of one connection: the stack of its latest recorded request.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct StackRecord {
    /// Registers and identity.
    pub header: StackHeader,
    /// Stack bytes from `header.sp` upward; the first `header.len` are valid.
    pub bytes: [u8; MAX_STACK],
}
plain!(StackRecord, 144 + MAX_STACK);

/// What the collector has learnt about a process and tells the kernel programs.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackProfile {
    /// Bytes of stack to copy, a multiple of [`STACK_CHUNK`], at most [`MAX_STACK`].
    pub stack_bytes: u32,
    /// 1: it is written in Go, so its threads have goroutines. Elsewhere the attempt to find one ends
    /// in a page fault, which costs more than the stack.
    pub goroutines: u32,
}
plain!(StackProfile, 8);
