//! Steps from a frame to its caller, and the copied stack that they are read from.

use std::cell::Cell;

use crate::raw::{InterpreterFrame, RawStack};
use crate::unwind::registers::Registers;

/// How a stack walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum End {
    /// At the thread's first function.
    Root,
    /// At a frame without a caller, in code that says nothing about unwinding; the name of the
    /// function decides whether it is the first.
    MaybeRoot,
    /// Above the copied bytes; a longer copy would have shown more.
    CopyTooShort,
    /// At an address outside of the known mappings: code that was loaded later, or no code at all.
    Unmapped,
    /// At something that cannot be followed.
    Lost,
}

/// What one step outward led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// To the frame with this return address.
    Caller(u64),
    /// To the frame that a signal interrupted at this address.
    Interrupted(u64),
    /// To the frame that goes on at this address, which need not follow a call.
    Suspended(u64),
    /// There is no caller.
    End(End),
}

/// A frame of which the caller is looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    /// An address inside its current instruction.
    pub(crate) address: u64,
    /// Where it goes on.
    pub(crate) next: u64,
    /// It is the innermost one, which made the system call.
    pub(crate) innermost: bool,
}

/// A step that a language's runtime has made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RuntimeStep {
    /// Where it led.
    pub(crate) step: Step,
    /// Which of the process's runtimes made it.
    pub(crate) runtime: usize,
    /// What the frame that was left is named by; `None`: its address.
    pub(crate) frame: Option<InterpreterFrame>,
}

/// Steps through frames of which a language's runtime knows more than the native rules do.
pub(crate) trait RuntimeUnwinder {
    /// Goes from the frame at `position` to its caller: changes the registers to the caller's.
    /// `None`: the frame is not a runtime's, and nothing was changed.
    fn step(
        &mut self,
        position: Position,
        registers: &mut Registers,
        stack: &StackCopy<'_>,
    ) -> Option<RuntimeStep>;
}

/// The copy of a stack, and what was missed in it.
#[derive(Debug)]
pub(crate) struct StackCopy<'a> {
    raw: &'a RawStack,
    missing: Cell<Option<u64>>,
}

impl<'a> StackCopy<'a> {
    /// A copy in which nothing was missed yet.
    pub(crate) fn new(raw: &'a RawStack) -> Self {
        Self { raw, missing: Cell::new(None) }
    }

    /// The word at `address`. When the copy does not hold it, that is remembered for [`Self::end`].
    pub(crate) fn word(&self, address: u64) -> Option<u64> {
        let word = self.raw.word(address);
        if word.is_none() && self.missing.get().is_none() {
            self.missing.set(Some(address));
        }
        word
    }

    /// Why a step failed that needed words of the stack.
    pub(crate) fn end(&self) -> End {
        match self.missing.get() {
            Some(at) if self.raw.cut_before(at) => End::CopyTooShort,
            _ => End::Lost,
        }
    }
}
