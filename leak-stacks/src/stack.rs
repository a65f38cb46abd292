//! Stacks with names, as they are handed out.

use serde::{Deserialize, Serialize};

use crate::shortfall::Shortfall;

/// Identity of an interned stack: 16 hex digits, the same for the same code in every process and
/// every run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(inline))]
#[serde(transparent)]
pub struct StackId(pub String);

/// How much of a stack is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Frame {
    /// Demangled name; unknown when the module has no symbol there.
    pub function: Option<String>,
    /// Path of the binary as the process sees it; for Python, of the source file; unknown for code
    /// that was compiled at run time.
    pub module: Option<String>,
    /// Source file; unknown without debug information.
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
