//! Stacks with names, as they are handed out.

use std::borrow::Cow;
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::truncation::TruncationReason;

/// Identity of an interned stack, the same for the same code in every process and every run. It is
/// written as 16 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(inline, with = "String"))]
pub struct StackId(pub u64);

impl fmt::Display for StackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// For tests: a name's first eight bytes, in the order of the names.
#[cfg(any(test, feature = "fuzzing"))]
impl From<&str> for StackId {
    fn from(name: &str) -> Self {
        let padded = name.bytes().chain(std::iter::repeat(0)).take(8);
        Self(padded.fold(0, |id, byte| id << 8 | u64::from(byte)))
    }
}

impl Serialize for StackId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'a> Deserialize<'a> for StackId {
    fn deserialize<D: Deserializer<'a>>(from: D) -> Result<Self, D::Error> {
        let text = <Cow<'_, str>>::deserialize(from)?;
        let is_written_so = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let id = u64::from_str_radix(&text, 16).ok().filter(|_| is_written_so);
        id.map(Self).ok_or_else(|| D::Error::custom("a stack's identity is not 16 hex digits"))
    }
}

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
    Deno,
    Bun,
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
    /// Path of the binary as the process sees it; of the source file for interpreters whose calls
    /// have one, such as CPython; unknown for code that was compiled at run time.
    pub module: Option<String>,
    /// Source file; unknown without debug information.
    pub file: Option<String>,
    /// Line in `file`, from 1; of a function that a perf map names, the one where it begins, and so
    /// of one of JavaScript's as long as V8 has not worked out its lines.
    pub line: Option<u32>,
    /// Address in the module's own numbering (as `addr2line` takes it); in no module, the absolute
    /// address; for an interpreter's call, the place in the function's bytecode.
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
    #[serde(rename = "shortfall")]
    pub truncation: Option<TruncationReason>,
    /// Language of its application frames.
    pub language: Language,
    /// Frames, innermost first; inlined calls are frames of their own.
    pub frames: Vec<Frame>,
    /// Index in `frames` of the innermost one that belongs to the application.
    pub culprit: Option<usize>,
    /// Indices in `frames` of those further out that belong to the application as much as the
    /// culprit does, innermost first.
    #[serde(default)]
    pub callers: Vec<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_written_as_16_hex_digits() {
        let id = StackId(0x00ab_cdef_0123_4567);
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"00abcdef01234567\"");
        assert_eq!(serde_json::from_str::<StackId>("\"00abcdef01234567\"").unwrap(), id);
        for wrong in ["\"\"", "\"abc\"", "\"+0abcdef01234567\"", "\"00abcdef0123456g\"", "7"] {
            assert!(serde_json::from_str::<StackId>(wrong).is_err(), "{wrong}");
        }
    }
}
