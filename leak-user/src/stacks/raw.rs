//! A user stack as it was copied, before anything is known about it.

use leak_common::interpreter::InterpreterFrame;
use leak_common::stack::{GOROUTINE_WINDOW, PRESERVED};

use crate::event::ProcessKey;

/// Registers and stack bytes of one thread at the moment of a system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawStack {
    /// The process.
    pub process: ProcessKey,
    /// The thread.
    pub tid: u32,
    /// Where the stack of the process's first thread began when the process executed its program: tells
    /// that program from what it executed before and after; 0: unknown.
    pub image: u64,
    /// Instruction pointer.
    pub ip: u64,
    /// Stack pointer: the address of the first byte of `bytes`.
    pub sp: u64,
    /// Frame pointer.
    pub bp: u64,
    /// The other registers that functions preserve: `rbx`, then `r12` to `r15`.
    pub preserved: [u64; PRESERVED],
    /// How many bytes were asked for. When `bytes` is shorter, the copy reached the stack's end or
    /// memory that could not be read, and asking for more would not help.
    pub wanted: u32,
    /// Bytes of the goroutine's descriptor, from
    /// [`GOROUTINE_WINDOW_START`](leak_common::stack::GOROUTINE_WINDOW_START) on.
    pub goroutine_window: [u8; GOROUTINE_WINDOW],
    /// The calls of an interpreter, innermost first; none in programs without one.
    pub interpreter_frames: Vec<InterpreterFrame>,
    /// Whether these are all calls of the thread.
    pub interpreter_whole: bool,
    /// [`InterpreterProfile::tag`](leak_common::interpreter::InterpreterProfile::tag) of the profile
    /// that they were found with.
    pub interpreter_tag: u32,
    /// The stack from `sp` upward.
    pub bytes: Vec<u8>,
}

impl RawStack {
    /// The word at `address`, when the copy holds it.
    pub(super) fn word(&self, address: u64) -> Option<u64> {
        let offset = usize::try_from(address.checked_sub(self.sp)?).ok()?;
        super::bytes::u64_at(&self.bytes, offset)
    }

    /// Whether `address` lies above the copy only because the copy was cut at the wanted length.
    pub(super) fn cut_before(&self, address: u64) -> bool {
        let wanted = usize::try_from(self.wanted).unwrap_or(usize::MAX);
        let above = address
            .checked_sub(self.sp)
            .is_some_and(|offset| offset.saturating_add(8) > self.bytes.len() as u64);
        above && self.bytes.len() >= wanted
    }
}
