//! From the registers and bytes of a user stack to functions, files and lines.
//!
//! [`Resolver`] is the door: it unwinds with the binaries' own rules (`.eh_frame` and
//! `.debug_frame`, Go's line table for Go, and where there are none the code itself), symbolizes ([blazesym], Go's line table, perf maps),
//! names the Python calls that the interpreter runs, and picks the culprit. All of it reads files that strangers made, so whatever they claim is
//! checked, and what fails costs one stack.

mod assemble;
mod binary;
mod bytes;
mod cfi;
mod culprit;
mod debug_file;
mod driver_frames;
mod elf;
mod emulate;
mod golang;
mod modules;
mod perf_map;
mod perf_name;
mod python;
mod raw;
mod registers;
mod resolver;
mod skipped;
mod symbolize;
#[cfg(test)]
mod tests;
mod unwind;
mod vdso;

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::{Deserialize, Serialize};

pub use self::driver_frames::{DriverFrames, DriverFramesError};
pub use self::modules::ModulesError;
pub use self::raw::RawStack;
pub use self::resolver::{Resolved, Resolver, ResolverStats};
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
