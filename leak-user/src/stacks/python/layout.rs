//! Where each release of CPython keeps what is read of it.
//!
//! To 3.12 the offsets are those that a compiler gives to the structures in Include/cpython/code.h,
//! pystate.h, unicodeobject.h and frameobject.h and in Include/internal/pycore_runtime.h,
//! pycore_interp.h and pycore_frame.h of that release, for x86-64. Since 3.13 a process describes itself: `_PyRuntime` begins
//! with a `_Py_DebugOffsets` (pycore_runtime.h).

use std::hash::{DefaultHasher, Hash, Hasher};

use leak_common::interpreter::InterpreterProfile;
use leak_common::interpreter::cpython::{ABSENT, KIND, Parameters, WINDOW};

use super::super::bytes::u64_at;
use super::lines::LineFormat;

/// A release: 3 and 11 for 3.11.
pub(super) type Version = (u8, u8);

/// How a frame notes where in its code it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Instruction {
    /// Offset in bytes.
    Bytes,
    /// Offset in units of two bytes.
    Units,
    /// Address.
    Address,
}

/// Offsets in a code object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct CodeLayout {
    pub(super) file: u32,
    pub(super) name: u32,
    /// The name with its classes and enclosing functions.
    pub(super) qualified_name: Option<u32>,
    pub(super) first_line: u32,
    pub(super) lines: u32,
    /// The bytecode itself, or the address of the `bytes` object that holds it.
    pub(super) bytecode: u32,
    /// Bytes that hold all of the above.
    pub(super) size: u32,
}

/// Everything about a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Layout {
    /// In `_PyRuntime`: the first interpreter.
    pub(super) interpreters: u32,
    /// In an interpreter: its first thread.
    pub(super) threads: u32,
    /// In a thread.
    pub(super) next_thread: u32,
    pub(super) interpreter: u32,
    pub(super) thread_id: u32,
    pub(super) frame: u32,
    /// In what `frame` leads to; [`ABSENT`]: it leads to the frame.
    pub(super) control_frame: u32,
    /// In a frame.
    pub(super) code_of_frame: u32,
    pub(super) instruction_of_frame: u32,
    pub(super) previous: u32,
    /// Of frames that C code pushed; before 3.12 there were none.
    pub(super) owner: u32,
    pub(super) instruction: Instruction,
    pub(super) code: CodeLayout,
    pub(super) line_format: LineFormat,
    /// Size of `PyASCIIObject`; the characters of a string that is all ASCII follow it.
    pub(super) ascii_size: u32,
    /// Size of `PyCompactUnicodeObject`; the characters of other strings follow it.
    pub(super) unicode_size: u32,
}

/// In every object: its type.
pub(super) const TYPE: u32 = 8;
/// In an object of variable size: how many items it has.
pub(super) const SIZE: u32 = 16;
/// In a `bytes` object: its bytes.
pub(super) const BYTES: u32 = 32;
/// In a `str` object: its length in characters, and the bits that describe it.
pub(super) const LENGTH: u32 = 16;
pub(super) const STATE: u32 = 32;
/// `FRAME_OWNED_BY_CSTACK` of 3.12 and 3.13.
const OWNED_BY_C: u32 = 3;

const CODE_3_8: CodeLayout = CodeLayout {
    file: 104,
    name: 112,
    qualified_name: None,
    first_line: 40,
    lines: 120,
    bytecode: 48,
    size: 128,
};

const V3_8: Layout = Layout {
    interpreters: 32,
    threads: 8,
    next_thread: 8,
    interpreter: 16,
    thread_id: 176,
    frame: 24,
    control_frame: ABSENT,
    code_of_frame: 32,
    instruction_of_frame: 104,
    previous: 24,
    owner: ABSENT,
    instruction: Instruction::Bytes,
    code: CODE_3_8,
    line_format: LineFormat::Steps,
    ascii_size: 48,
    unicode_size: 72,
};

const V3_10: Layout = Layout {
    instruction_of_frame: 96,
    instruction: Instruction::Units,
    line_format: LineFormat::Ranges,
    ..V3_8
};

const V3_11: Layout = Layout {
    interpreters: 40,
    threads: 16,
    thread_id: 152,
    frame: 56,
    control_frame: 8,
    code_of_frame: 32,
    instruction_of_frame: 56,
    previous: 48,
    instruction: Instruction::Address,
    code: CodeLayout {
        file: 112,
        name: 120,
        qualified_name: Some(128),
        first_line: 72,
        lines: 136,
        bytecode: 184,
        size: 184,
    },
    line_format: LineFormat::Locations,
    ..V3_10
};

const V3_12: Layout = Layout {
    threads: 72,
    thread_id: 136,
    control_frame: 0,
    code_of_frame: 0,
    previous: 8,
    owner: 70,
    code: CodeLayout { first_line: 68, bytecode: 192, size: 192, ..V3_11.code },
    ascii_size: 40,
    unicode_size: 56,
    ..V3_11
};

impl Layout {
    /// The layout of a release, if it is known without asking the process.
    pub(super) fn of(version: Version) -> Option<Self> {
        Some(match version {
            (3, 8 | 9) => V3_8,
            (3, 10) => V3_10,
            (3, 11) => V3_11,
            (3, 12) => V3_12,
            _ => return None,
        })
    }

    /// How many bytes of `_PyRuntime` [`Layout::described`] takes.
    pub(super) const DESCRIPTION: usize = 568;

    /// The layout that a process of release 3.13 describes at the start of its `_PyRuntime`.
    ///
    /// Later releases have inserted fields; builds without the global lock have larger objects.
    pub(super) fn described(description: &[u8]) -> Option<Self> {
        let word = |offset| u64_at(description, offset);
        if !description.starts_with(b"xdebugpy") || word(8)? >> 16 != 0x030d || word(16)? != 0 {
            return None;
        }
        // Structures of the interpreter's whole state are large, all others small.
        let within = |offset, most| u32::try_from(word(offset)?).ok().filter(|&at| at <= most);
        let large = |offset| within(offset, 1 << 20);
        let small = |offset| within(offset, 4096);
        if [word(360)?, word(520)?, word(528)?] != [TYPE, SIZE, BYTES].map(u64::from)
            || [word(544)?, word(552)?] != [STATE, LENGTH].map(u64::from)
        {
            return None;
        }
        let bytecode = small(344)?;
        let ascii_size = small(560)?;
        Some(Self {
            interpreters: large(40)?,
            threads: large(72)?,
            next_thread: small(168)?,
            interpreter: small(176)?,
            frame: small(184)?,
            thread_id: small(192)?,
            control_frame: ABSENT,
            previous: small(232)?,
            code_of_frame: small(240)?,
            instruction_of_frame: small(248)?,
            owner: small(264)?,
            code: CodeLayout {
                file: small(280)?,
                name: small(288)?,
                qualified_name: Some(small(296)?),
                lines: small(304)?,
                first_line: small(312)?,
                bytecode,
                size: bytecode,
            },
            ascii_size,
            // It adds the text's form in UTF-8 and that form's length.
            unicode_size: ascii_size + 16,
            ..V3_12
        })
    }

    /// What the kernel programs need, given the slot of a thread's `PyThreadState`; `None` when the fields lie too
    /// far apart for them.
    pub(super) fn profile(&self, slots: u32, slot: u32) -> Option<InterpreterProfile> {
        let fields = [self.code_of_frame, self.instruction_of_frame, self.previous];
        let window = *fields.iter().min()?;
        let last = fields.iter().max()?.max(if self.owner == ABSENT { &0 } else { &self.owner });
        let window_len = (last - window) / 8 * 8 + 8;
        if window_len as usize > WINDOW || fields.iter().any(|f| (f - window) % 8 != 0) {
            return None;
        }
        let (owner, foreign_owner) = match self.owner {
            ABSENT => (0, ABSENT),
            owner => (owner.checked_sub(window)?, OWNED_BY_C),
        };
        let parameters = Parameters {
            slots,
            slot,
            frame: self.frame,
            control_frame: self.control_frame,
            window,
            window_len,
            code: self.code_of_frame - window,
            instruction: self.instruction_of_frame - window,
            previous: self.previous - window,
            owner,
            foreign_owner,
            ..Parameters::default()
        };
        let tag = self.tag(&parameters);
        Some(InterpreterProfile { kind: KIND, tag, parameters: parameters.raw() })
    }

    /// A hash of everything that has a part in finding a call and its place in the code.
    fn tag(&self, parameters: &Parameters) -> u32 {
        let mut hasher = DefaultHasher::new();
        (self, parameters).hash(&mut hasher);
        let hash = hasher.finish();
        (hash ^ (hash >> 32)) as u32
    }
}
