//! Why a stack is incomplete.

use serde::{Deserialize, Serialize};

/// Why a stack is truncated or missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TruncationReason {
    /// The copied bytes end before the stack does; later copies of the process are longer.
    CopyTooShort,
    /// The stack is deeper than the most that is ever copied.
    CopyLimit,
    /// It has more calls than are followed.
    TooManyCalls,
    /// A binary on the way could not be opened or read, or is no ELF file that can be understood.
    UnreadableFile,
    /// A binary on the way took too long to read.
    UnresponsiveFile,
    /// A binary on the way says nothing about unwinding, and frame pointers led nowhere.
    NoUnwindInformation,
    /// Code that was compiled at run time, where frame pointers led nowhere.
    RuntimeCode,
    /// An address outside of all executable memory.
    UnmappedAddress,
    /// The rules or the bytes of the stack led nowhere.
    Unfollowable,
    /// The process was gone before it could be looked at.
    ProcessGone,
    /// The process executed another program before the one of the stack could be looked at.
    ProgramReplaced,
    /// Too many processes were known already.
    TooManyProcesses,
    /// Too many stacks waited to be resolved.
    TooManyWaiting,
    /// The trace ended before it was resolved.
    NotInTime,
    /// It was not copied at `connect()`: the budget for copying was spent.
    OverBudget,
    /// It was not copied: the process's stack could not be read.
    UnreadableStack,
    /// It was not recorded: the budget for copying was spent, two threads used the connection at
    /// once, or there was no room.
    NotRecorded,
}

impl TruncationReason {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::CopyTooShort,
        Self::CopyLimit,
        Self::TooManyCalls,
        Self::UnreadableFile,
        Self::UnresponsiveFile,
        Self::NoUnwindInformation,
        Self::RuntimeCode,
        Self::UnmappedAddress,
        Self::Unfollowable,
        Self::ProcessGone,
        Self::ProgramReplaced,
        Self::TooManyProcesses,
        Self::TooManyWaiting,
        Self::NotInTime,
        Self::OverBudget,
        Self::UnreadableStack,
        Self::NotRecorded,
    ];

    /// In words, to stand in parentheses.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::CopyTooShort => "copy too short, longer from now on",
            Self::CopyLimit => "deeper than the most that is copied",
            Self::TooManyCalls => "more calls than are followed",
            Self::UnreadableFile => "a binary cannot be read",
            Self::UnresponsiveFile => "a binary took too long to read",
            Self::NoUnwindInformation => "a binary without unwind information",
            Self::RuntimeCode => "code compiled at run time",
            Self::UnmappedAddress => "an address outside of all code",
            Self::Unfollowable => "its bytes led nowhere",
            Self::ProcessGone => "process gone before it was seen",
            Self::ProgramReplaced => "process executed another program before it was seen",
            Self::TooManyProcesses => "too many processes",
            Self::TooManyWaiting => "too many stacks waiting",
            Self::NotInTime => "not resolved before the end",
            Self::OverBudget => "not copied, budget spent",
            Self::UnreadableStack => "not copied, stack unreadable",
            Self::NotRecorded => "not recorded",
        }
    }
}
