//! A thread's user stack as the kernel programs copy it: registers and bytes, unwound later.

use bytemuck::{Pod, Zeroable};

use crate::interpreter::{InterpreterFrame, InterpreterProfile, MAX_FRAMES};
use crate::size;

/// Most bytes of a stack that are ever copied.
pub const MAX_STACK: usize = 30 * 1024;
/// What a record takes besides the stack's bytes: its header, and what the kernel adds to an entry
/// of a hash map (`struct htab_elem`, the key, a link).
const AROUND: usize = size_of::<StackHeader>() + 48 + 8 + 8;
/// Most bytes of a stack in a short record, which fills a block of the kernel's allocator: their
/// sizes are powers of two. A long one has room for [`MAX_STACK`].
pub const SHORT_STACK: usize = 16 * 1024 - AROUND;
/// Stacks are copied in chunks of this many bytes, until one fails. Half a page: each read costs as
/// much as copying some hundred bytes, and a read that fails costs a page fault.
pub const STACK_CHUNK: usize = 2048;
/// How many registers functions preserve besides stack and frame pointer.
pub const PRESERVED: usize = 5;
/// Where in a goroutine's descriptor (Go's `runtime.g`) the copied window begins.
pub const GOROUTINE_WINDOW_START: usize = 128;
/// Length of that window; every release since Go 1.17 keeps the goroutine's id inside it.
pub const GOROUTINE_WINDOW: usize = 64;

/// The key in the map of profiles whose profile is tried at `connect()` in processes without their
/// own: no process has this number.
pub const ANY_PROCESS: u32 = 0;

/// What is known of a copied stack besides its bytes.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug)]
pub struct StackHeader {
    /// Odd while the kernel writes the record, even when it is complete.
    pub sequence: u64,
    /// Cookie of the connection that was opened or used.
    pub cookie: u64,
    /// Number of the request this stack belongs to, from 1; 0 for `connect()`.
    pub request: u64,
    /// When it was taken, nanoseconds of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// Start time of the process, nanoseconds of `CLOCK_BOOTTIME`.
    pub process_start_ns: u64,
    /// Start of the main thread's stack, set when the process executed its program: tells that
    /// program from those that the process executed before and after; 0: unknown.
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
    /// How many bytes were wanted, up to the record's capacity; if fewer were copied, the stack
    /// ended or could not be read.
    pub wanted: u32,
    /// Bytes of the goroutine's descriptor from [`GOROUTINE_WINDOW_START`] on, for programs known
    /// to be written in Go and at `connect()`; otherwise zeroes or noise.
    pub goroutine: [u8; GOROUTINE_WINDOW],
    /// How many of `interpreter_frames` are valid.
    pub interpreter_len: u32,
    /// 1: they are all that the thread has; 0: there are more, or they could not be read, or the
    /// process runs no interpreter that the kernel programs can walk.
    pub interpreter_whole: u32,
    /// [`InterpreterProfile::tag`] of the profile that they were found with.
    pub interpreter_tag: u32,
    /// Fills up the structure; always 0.
    pub reserved: u32,
    /// The interpreter's calls, innermost first.
    pub interpreter_frames: [InterpreterFrame; MAX_FRAMES],
}
size!(StackHeader, (9 + PRESERVED) * 8 + 4 * 4 + GOROUTINE_WINDOW + 4 * 4 + 24 * MAX_FRAMES);

/// One record of the flight recorder: the stack of a request, or as much of it as the record has
/// room for.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct StackRecord<const N: usize> {
    /// Registers and identity.
    pub header: StackHeader,
    /// Stack bytes from `header.sp` upward; the first `header.len` are valid.
    pub bytes: [u8; N],
}
size!(StackRecord<SHORT_STACK>, size_of::<StackHeader>() + SHORT_STACK);
size!(StackRecord<MAX_STACK>, size_of::<StackHeader>() + MAX_STACK);

// SAFETY: both fields are valid when zeroed. (The derive does not take generic types.)
unsafe impl<const N: usize> Zeroable for StackRecord<N> {}
// SAFETY: the header and bytes are plain data, and the sizes asserted above leave no padding.
unsafe impl Pod for StackRecord<SHORT_STACK> {}
// SAFETY: as above.
unsafe impl Pod for StackRecord<MAX_STACK> {}

/// The number of a record in the flight recorder.
///
/// Each slot of the table of connections has as many numbers as stacks are kept of it: first that
/// of its latest request, then those of the uses that are kept, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordNumber(u32);

impl RecordNumber {
    /// The record of a slot's latest request, where `uses` uses of each connection are kept.
    #[must_use]
    #[inline(always)]
    pub const fn latest(slot: u32, uses: u32) -> Self {
        Self(slot.wrapping_mul(uses.wrapping_add(1)))
    }

    /// The record of the use that is kept at this index, in the slot of which this is the record of
    /// the latest request.
    #[must_use]
    #[inline(always)]
    pub const fn of_use(self, index: u32) -> Self {
        Self(self.0.wrapping_add(1).wrapping_add(index))
    }

    /// All records of a slot.
    #[inline(always)]
    pub fn all(slot: u32, uses: u32) -> impl Iterator<Item = Self> {
        let Self(first) = Self::latest(slot, uses);
        (0..uses.wrapping_add(1)).map(move |index| Self(first.wrapping_add(index)))
    }

    /// The key in the maps of records.
    #[must_use]
    #[inline(always)]
    pub const fn key(self) -> u32 {
        self.0
    }
}

/// What the collector has learnt about a process, for the kernel programs.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, Default, PartialEq, Eq)]
pub struct StackProfile {
    /// Bytes of stack to copy, at most [`MAX_STACK`]; 0: nothing was learnt, the default applies.
    pub stack_bytes: u32,
    /// 1: it is written in Go, so its threads have goroutines. In other programs, looking for one
    /// ends in a page fault, which costs more than the stack.
    pub goroutines: u32,
    /// Which interpreter it runs, and where that keeps its calls. In other processes, looking for
    /// them would likewise end in a page fault.
    pub interpreter: InterpreterProfile,
}
size!(StackProfile, 8 + 72);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_different_slots_have_different_numbers() {
        for uses in [0, 1, 16] {
            let numbers: [u32; 2] =
                core::array::from_fn(|slot| RecordNumber::all(slot as u32, uses).count() as u32);
            assert_eq!(numbers, [uses + 1; 2]);
            let keys = (0..3).flat_map(|slot| RecordNumber::all(slot, uses)).map(RecordNumber::key);
            assert!(keys.eq(0..3 * (uses + 1)));
        }
    }

    #[test]
    fn the_record_of_a_use_follows_that_of_the_latest_request() {
        let latest = RecordNumber::latest(5, 3);
        assert_eq!(
            [latest, latest.of_use(0), latest.of_use(2)].map(RecordNumber::key),
            [20, 21, 23]
        );
        assert!(RecordNumber::all(5, 3).any(|number| number == latest.of_use(2)));
    }
}
