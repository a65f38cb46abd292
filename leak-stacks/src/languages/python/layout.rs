//! Where each release of CPython keeps what is read of it.
//!
//! To 3.12 the offsets are those that a compiler gives to the structures in Include/cpython/code.h,
//! pystate.h, unicodeobject.h and frameobject.h and in Include/internal/pycore_runtime.h,
//! pycore_interp.h and pycore_frame.h of that release, for x86-64. Later ones describe themselves;
//! see [`description`](super::description).

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::languages::python::lines::LineFormat;
use crate::raw::{InterpreterProfile, PROFILE_PARAMETERS, walker};

/// A release: 3 and 11 for 3.11.
pub(crate) type Version = (u8, u8);

/// Bytes of a frame that are read at once, at most: in every release, all fields that are noted lie
/// within a window of this length.
pub(crate) const WINDOW: usize = 96;
/// Marks an offset that a release does not have.
pub(crate) const ABSENT: u32 = u32::MAX;

/// How a frame notes where in its code it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Instruction {
    /// Offset in bytes.
    Bytes,
    /// Offset in units of two bytes.
    Units,
    /// Address.
    Address,
}

/// Offsets in a code object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CodeLayout {
    pub(crate) file: u32,
    pub(crate) name: u32,
    /// The name with its classes and enclosing functions.
    pub(crate) qualified_name: Option<u32>,
    pub(crate) first_line: u32,
    pub(crate) lines: u32,
    /// The bytecode itself, or the address of the `bytes` object that holds it.
    pub(crate) bytecode: u32,
    /// The address of a table of the bytecode's copies, one for each thread.
    pub(crate) copies: Option<u32>,
    /// Bytes that hold all of the above.
    pub(crate) size: u32,
}

/// Offsets in objects of the basic types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ObjectLayout {
    /// In every object: its type.
    pub(crate) type_of: u32,
    /// In an object of variable size: how many items it has. In a `str` object: how many
    /// characters.
    pub(crate) size: u32,
    /// In a `bytes` object: its bytes. In a `str` object: the bits that describe it.
    pub(crate) after_hash: u32,
    /// Size of `PyASCIIObject`; the characters of a string that is all ASCII follow it.
    pub(crate) ascii_size: u32,
    /// Size of `PyCompactUnicodeObject`; the characters of other strings follow it.
    pub(crate) unicode_size: u32,
}

/// Everything about a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Layout {
    /// In `_PyRuntime`: the first interpreter.
    pub(crate) interpreters: u32,
    /// In an interpreter: its first thread.
    pub(crate) threads: u32,
    /// In a thread: its innermost frame, or what leads to it.
    pub(crate) frame: u32,
    /// In what `frame` leads to; [`ABSENT`]: it leads to the frame.
    pub(crate) control_frame: u32,
    /// In a frame.
    pub(crate) code_of_frame: u32,
    pub(crate) instruction_of_frame: u32,
    pub(crate) previous: u32,
    /// Of frames that C code pushed; before 3.12 there were none.
    pub(crate) owner: u32,
    pub(crate) instruction: Instruction,
    pub(crate) code: CodeLayout,
    pub(crate) line_format: LineFormat,
    pub(crate) object: ObjectLayout,
}

/// In a thread: the next one, and its interpreter.
pub(crate) const NEXT_THREAD: u32 = 8;
pub(crate) const INTERPRETER: u32 = 16;
/// Owners of frames from this one on are no functions: `FRAME_OWNED_BY_CSTACK` of 3.12 and 3.13,
/// `FRAME_OWNED_BY_INTERPRETER` later.
const FIRST_FOREIGN_OWNER: u32 = 3;

const CODE_3_8: CodeLayout = CodeLayout {
    file: 104,
    name: 112,
    qualified_name: None,
    first_line: 40,
    lines: 120,
    bytecode: 48,
    copies: None,
    size: 128,
};

const OBJECT_3_8: ObjectLayout =
    ObjectLayout { type_of: 8, size: 16, after_hash: 32, ascii_size: 48, unicode_size: 72 };

const V3_8: Layout = Layout {
    interpreters: 32,
    threads: 8,
    frame: 24,
    control_frame: ABSENT,
    code_of_frame: 32,
    instruction_of_frame: 104,
    previous: 24,
    owner: ABSENT,
    instruction: Instruction::Bytes,
    code: CODE_3_8,
    line_format: LineFormat::Steps,
    object: OBJECT_3_8,
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
        copies: None,
        size: 184,
    },
    line_format: LineFormat::Locations,
    ..V3_10
};

pub(crate) const V3_12: Layout = Layout {
    threads: 72,
    control_frame: 0,
    code_of_frame: 0,
    previous: 8,
    owner: 70,
    code: CodeLayout { first_line: 68, bytecode: 192, size: 192, ..V3_11.code },
    object: ObjectLayout { ascii_size: 40, unicode_size: 56, ..OBJECT_3_8 },
    ..V3_11
};

impl Layout {
    /// The layout of a release, if it is known without asking the process.
    pub(crate) fn of(version: Version) -> Option<Self> {
        Some(match version {
            (3, 8 | 9) => V3_8,
            (3, 10) => V3_10,
            (3, 11) => V3_11,
            (3, 12) => V3_12,
            _ => return None,
        })
    }

    /// In what a thread's `frame` leads to, where its innermost frame is; `None`: it leads there.
    pub(crate) fn control_frame(&self) -> Option<u32> {
        (self.control_frame != ABSENT).then_some(self.control_frame)
    }

    /// What the kernel programs need, given the slot of a thread's `PyThreadState`; `None` when the
    /// fields are too far apart for them.
    pub(crate) fn profile(&self, slots: u32, slot: u32) -> Option<InterpreterProfile> {
        let fields = [self.code_of_frame, self.instruction_of_frame, self.previous];
        let window = *fields.iter().min()?;
        let last = fields.iter().max()?.max(if self.owner == ABSENT { &0 } else { &self.owner });
        let window_len = (last - window) / 8 * 8 + 8;
        if window_len as usize > WINDOW || fields.iter().any(|f| (f - window) % 8 != 0) {
            return None;
        }
        let (owner, foreign_owners) = match self.owner {
            ABSENT => (0, ABSENT),
            owner => (owner.checked_sub(window)?, FIRST_FOREIGN_OWNER),
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
            foreign_owners,
        };
        let tag = self.tag(&parameters);
        Some(InterpreterProfile { kind: walker::CPYTHON, tag, parameters: parameters.raw() })
    }

    /// A hash of everything that has a part in finding a call and its place in the code.
    fn tag(&self, parameters: &Parameters) -> u32 {
        let mut hasher = DefaultHasher::new();
        (self, parameters).hash(&mut hasher);
        let hash = hasher.finish();
        (hash ^ (hash >> 32)) as u32
    }
}

/// The parameters of a profile, as the kernel's walker for CPython takes them. All offsets are in
/// bytes.
///
/// The path leads from the thread register to the thread's slot for Python, to its
/// `PyThreadState`, to its current frame, and from frame to frame outward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Parameters {
    /// From the thread register, the address of the table of slots; [`ABSENT`]: the slots
    /// themselves are there.
    pub(crate) slots: u32,
    /// From the table or the thread register, the slot with the address of the `PyThreadState`; a
    /// signed number, for variables of a thread lie below its register.
    pub(crate) slot: u32,
    /// In `PyThreadState`, the pointer that leads to the current frame.
    pub(crate) frame: u32,
    /// In the structure that `frame` points to, the address of the current frame; [`ABSENT`]:
    /// `frame` points to the frame itself.
    pub(crate) control_frame: u32,
    /// In a frame, the start of the window that is read.
    pub(crate) window: u32,
    /// The window's length, a multiple of 8, at most [`WINDOW`].
    pub(crate) window_len: u32,
    /// In the window, the address of the code object; a multiple of 8.
    pub(crate) code: u32,
    /// In the window, the instruction; a multiple of 8.
    pub(crate) instruction: u32,
    /// In the window, the address of the caller's frame; a multiple of 8.
    pub(crate) previous: u32,
    /// In the window, the byte that says who owns the frame.
    pub(crate) owner: u32,
    /// Owners from this one on are those of frames that are not function calls; [`ABSENT`], which
    /// no byte reaches: there are no such frames.
    pub(crate) foreign_owners: u32,
}

impl Parameters {
    /// As a profile holds them.
    fn raw(self) -> [u32; PROFILE_PARAMETERS] {
        let known = [
            self.slots,
            self.slot,
            self.frame,
            self.control_frame,
            self.window,
            self.window_len,
            self.code,
            self.instruction,
            self.previous,
            self.owner,
            self.foreign_owners,
        ];
        let mut raw = [0; PROFILE_PARAMETERS];
        raw[..known.len()].copy_from_slice(&known);
        raw
    }

    /// From a profile.
    pub(crate) fn of(raw: &[u32; PROFILE_PARAMETERS]) -> Self {
        let [slots, slot, frame, control_frame, window, window_len, rest @ ..] = *raw;
        let [code, instruction, previous, owner, foreign_owners, ..] = rest;
        Self {
            slots,
            slot,
            frame,
            control_frame,
            window,
            window_len,
            code,
            instruction,
            previous,
            owner,
            foreign_owners,
        }
    }
}
