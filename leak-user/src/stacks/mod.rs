//! From the registers and bytes of a user stack to functions, files and lines.
//!
//! [`Resolver`] is the door: it unwinds with the binaries' own rules (`.eh_frame` and
//! `.debug_frame`, Go's line table for Go, and where there are none the code itself), symbolizes ([blazesym], Go's line table, perf maps),
//! names the Python calls that the interpreter runs, and picks the culprit. All of it reads files that strangers made, so whatever they claim is
//! checked, and what fails costs one stack.
//!
//! # Limits
//!
//! What is read belongs to strangers. Nothing is read through a memory mapping, since whoever truncates
//! the file would end us, and nothing is allocated because a file says so before it is known that the
//! file is that long.
//!
//! | what | most | beyond it |
//! |---|---|---|
//! | processes known | 8,192 | no stacks of further ones: `too_many_processes` |
//! | programs of one process, executed one after the other | 3 | the oldest is forgotten |
//! | `/proc/PID/maps` | 16 MiB, 8,192 executable mappings, 1,024 different files | the rest is unknown: `unmapped_address`, `unreadable_file` |
//! | files held open | 4,096, closed with the last process that runs them | `unreadable_file` |
//! | sections kept in memory, over all files | 384 MiB | the least recently used are read again |
//! | ELF headers of one file | 4,096 segments, 4,096 sections, names of 256 bytes | the file is unusable: `unreadable_file` |
//! | one section, also once decompressed | 128 MiB | it counts as missing |
//! | file with symbols | 16 GiB; symbols 256 MiB | no symbols |
//! | debug information | 256 MiB stored, 512 MiB decompressed, 8 MiB of lines for one unit | symbols only |
//! | unwind rules | those that jump are refused | they count as missing: `no_unwind_information` |
//! | calls of one stack | 512 | `too_many_calls` |
//! | Go's tables | 131,072 steps for one function, names of 1,024 bytes, 64 nested inlined calls | no name, or the walk ends |
//! | perf maps | 32 MiB and 262,144 symbols each, 524,288 symbols over all processes | the rest has no names; those of other processes are read again |
//! | CPython | names of 512 characters, paths of 1,024, line tables of 256 KiB | the call has no name |
//! | one request to the resolver | 20 s | the file is left alone for good: `unresponsive_file` |
//! | threads that never came back from a file | 8 | no more stacks are resolved, and it is said |
//!
//! A panic in a parser costs the stack that led to it. What is not bounded but by the time limit is how much
//! memory other crates' parsers of debug information take for what they unfold from a file within
//! these sizes.

mod assemble;
mod binary;
#[cfg(test)]
mod broken;
mod bytes;
mod cfi;
mod culprit;
mod debug_file;
mod driver_frames;
mod elf;
mod emulate;
mod fold;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod golang;
mod identity;
mod locate;
mod modules;
mod perf_map;
mod perf_name;
mod processor;
mod python;
mod raw;
mod registers;
mod resolver;
mod shortfall;
mod sighting;
mod skipped;
mod symbolize;
#[cfg(test)]
mod tests;
mod twins;
mod unwind;
mod vdso;
mod watch;

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::{Deserialize, Serialize};

pub use self::driver_frames::{DriverFrames, DriverFramesError};
pub use self::raw::RawStack;
pub use self::resolver::{Resolved, Resolver};
pub use self::shortfall::{Shortfall, StackCounts};
pub use self::sighting::{ModulesError, Pinner, Sighting};
pub use self::watch::Watch;
use crate::event::StackId;

/// How much of a stack is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quality {
    /// Down to the thread's first function.
    Complete,
    /// The innermost frames are right; outer ones are missing.
    Truncated,
    /// No frame could be had.
    None,
}

/// What the innermost application frame is written in, or runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Language {
    Go,
    Native,
    Python,
    Java,
    Node,
    Ruby,
    Php,
    Perl,
    Dotnet,
    Beam,
}

/// One function call of a stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Demangled name; `None` when the module has no symbol there.
    pub function: Option<String>,
    /// Path of the binary as the process sees it; for Python, of the source file; `None` for code that
    /// was compiled at run time.
    pub module: Option<String>,
    /// Source file.
    pub file: Option<String>,
    /// Line in `file`, from 1; of a function that a perf map names, the one where it begins.
    pub line: Option<u32>,
    /// Address in the module's own numbering (as `addr2line` takes it); in no module, the absolute
    /// address; for Python, the place in the function's bytecode.
    pub address: u64,
}

/// A symbolized stack, shared by every connection with the same one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stack {
    /// Identity.
    pub id: StackId,
    /// How much of it is known.
    pub quality: Quality,
    /// Why it is not complete; `None` when it is.
    pub shortfall: Option<Shortfall>,
    /// Language of its application frames.
    pub language: Language,
    /// Frames, innermost first; inlined calls are frames of their own.
    pub frames: Vec<Frame>,
    /// Index in `frames` of the innermost one that belongs to the application.
    pub culprit: Option<usize>,
}

/// Runs a parser over a stranger's bytes; `None` when it panics.
///
/// The parsers of other crates are good but not infallible, and the tool must outlive them. A panic
/// costs the one stack that led to it. It does not count against the binary: it may come from the
/// stack's bytes, and the binary may be shared with processes that have done nothing wrong.
fn guarded<T>(parse: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(parse)).ok()
}
