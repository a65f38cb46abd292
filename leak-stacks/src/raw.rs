//! A user stack as it was copied, before anything is known about it, and what whoever copies stacks
//! should know of a process.
//!
//! All of it is plain data: it can be stored, and sent to another process.

use serde::{Deserialize, Serialize};

use crate::bytes::u64_at;
use crate::process::ProcessKey;

/// Number of callee-saved registers besides the stack pointer and the frame pointer.
pub const PRESERVED_REGISTERS: usize = 5;
/// Where in a goroutine's descriptor (Go's `runtime.g`) the copied window begins.
pub const GOROUTINE_WINDOW_START: usize = 128;
/// Length of that window. Every release since Go 1.17 keeps the goroutine's id inside it.
pub const GOROUTINE_WINDOW: usize = 64;
/// Number of parameters that an [`InterpreterProfile`] has.
pub const PROFILE_PARAMETERS: usize = 16;

/// Registers and stack bytes of one thread at the moment of a system call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawStack {
    /// The process.
    pub process: ProcessKey,
    /// The thread.
    pub tid: u32,
    /// Where the main thread's stack began when the process executed its program: tells that
    /// program from those that the process executed before and after; 0: unknown.
    pub image: u64,
    /// Instruction pointer.
    pub ip: u64,
    /// Stack pointer: the address of the first byte of `bytes`.
    pub sp: u64,
    /// Frame pointer.
    pub bp: u64,
    /// The other callee-saved registers: `rbx`, then `r12` to `r15`.
    pub preserved: [u64; PRESERVED_REGISTERS],
    /// Whether `bp` and `preserved` are known; procfs does not tell them of a blocked thread.
    pub registers_known: bool,
    /// Where the thread has left a runtime's code, by the runtime's own word.
    pub entry: Option<RuntimeEntry>,
    /// How many bytes were asked for. When `bytes` is shorter, the copy reached the end of the
    /// stack or memory that could not be read, and asking for more would not help.
    pub wanted: u32,
    /// Whether `wanted` is as much as is ever copied.
    pub wanted_most: bool,
    /// Bytes of the goroutine's descriptor from [`GOROUTINE_WINDOW_START`] on, at most
    /// [`GOROUTINE_WINDOW`]; noise in programs that are not written in Go.
    pub goroutine_window: Vec<u8>,
    /// The interpreter frames that were noted at the time of the call, innermost first.
    pub interpreter_frames: Vec<InterpreterFrame>,
    /// Whether they are all that the thread has.
    pub interpreter_whole: bool,
    /// [`InterpreterProfile::tag`] of the profile that they were found with.
    pub interpreter_tag: u32,
    /// The stack from `sp` upward.
    pub bytes: Vec<u8>,
}

impl RawStack {
    /// The word at `address`, when the copy holds it.
    pub(crate) fn word(&self, address: u64) -> Option<u64> {
        let offset = usize::try_from(address.checked_sub(self.sp)?).ok()?;
        u64_at(&self.bytes, offset)
    }

    /// Whether `address` is above the copy only because the copy was cut at the wanted length.
    pub(crate) fn cut_before(&self, address: u64) -> bool {
        let wanted = usize::try_from(self.wanted).unwrap_or(usize::MAX);
        let above = address
            .checked_sub(self.sp)
            .is_some_and(|offset| offset.saturating_add(8) > self.bytes.len() as u64);
        above && self.bytes.len() >= wanted
    }
}

/// Where a thread has left a runtime's code for native code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeEntry {
    /// Where the runtime's code goes on.
    pub returns_to: u64,
    /// The stack pointer there.
    pub sp: u64,
    /// The frame pointer there; 0: it is not noted, since that code does not need it.
    pub bp: u64,
}

/// A call inside a runtime: noted by the kernel programs at the time of the system call, or found
/// in the copied stack by the runtime's own unwinder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InterpreterFrame {
    /// Address of the object that stands for the function or its code.
    pub pointer: u64,
    /// Position in that code, in the form in which the runtime keeps it.
    pub position: u64,
    /// Tells whether `pointer` still means the same when it is read later; 0 where the runtime has
    /// nothing of the sort.
    pub cookie: u32,
    /// What sort of frame it is; each language numbers its own.
    pub kind: u32,
}

/// How the kernel programs find the calls of the interpreter that a process runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InterpreterProfile {
    /// Which of the kernel's walkers takes them; see [`crate::walker`].
    pub kind: u32,
    /// Tells this profile from others. Frames that were found with another process's profile mean
    /// nothing, however right they look.
    pub tag: u32,
    /// Their meaning depends on `kind`.
    pub parameters: [u32; PROFILE_PARAMETERS],
}

/// Values of [`InterpreterProfile::kind`].
pub mod walker {
    /// CPython.
    pub const CPYTHON: u32 = 1;
    /// Ruby.
    pub const RUBY: u32 = 3;
    /// PHP.
    pub const PHP: u32 = 4;
}

/// How much of a process's stacks to copy.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum CopyLength {
    /// As much as of any process of which nothing is known.
    #[default]
    Usual,
    /// More than usual, as far as that costs no more memory.
    Generous,
    /// As much as is ever copied.
    Most,
}

/// What whoever copies a process's stacks should know of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackProfile {
    /// How much to copy.
    pub copy_length: CopyLength,
    /// Its threads run goroutines.
    pub goroutines: bool,
    /// How to find the calls of its interpreter, if they must be noted at the time of the call.
    pub interpreter: Option<InterpreterProfile>,
}

impl StackProfile {
    /// What both say; where both name an interpreter, the first counts.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            copy_length: self.copy_length.max(other.copy_length),
            goroutines: self.goroutines || other.goroutines,
            interpreter: self.interpreter.or(other.interpreter),
        }
    }
}
