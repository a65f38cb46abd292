//! Objects on Ruby's heap, and its texts.
//!
//! The fields are those of `struct RBasic`, `struct RString` and `struct RArray` in
//! include/ruby/internal/core, and of internal/imemo.h, for x86-64.

use crate::languages::target::Target;

/// Bits of an object's flags: its type.
const TYPE: u64 = 0x1f;
/// `T_CLASS`.
pub(crate) const CLASS: u64 = 0x02;
/// `T_MODULE`.
pub(crate) const MODULE: u64 = 0x03;
/// `T_STRING`.
pub(crate) const STRING: u64 = 0x05;
/// `T_ARRAY`.
pub(crate) const ARRAY: u64 = 0x07;
/// `T_DATA`.
pub(crate) const DATA: u64 = 0x0c;
/// `T_IMEMO`: an object of the VM's own.
const INTERNAL: u64 = 0x1a;

/// Bits of the flags of an object of the VM's own: which kind it is.
const INTERNAL_SHIFT: u32 = 12;
const INTERNAL_MASK: u64 = 0xf;
/// `imemo_cref`: the classes around a piece of code.
pub(crate) const CLASSES_AROUND: u64 = 1;
/// `imemo_ment`.
pub(crate) const METHOD_ENTRY: u64 = 6;
/// `imemo_iseq`.
pub(crate) const SEQUENCE: u64 = 7;

/// In the flags of a string: its bytes lie elsewhere. In those of an array: its items lie in it.
const FLAG_1: u64 = 1 << 13;
/// In the flags of a string whose bytes lie in it, to 3.1: its length.
const LENGTH_SHIFT: u32 = 14;
const LENGTH_MASK: u64 = 0x1f;

/// Lower addresses are no objects, but numbers, symbols and the like.
const LOWEST: u64 = 4096;

/// Where a string has bytes that lie in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TextForm {
    /// Behind the flags, which hold the length: to 3.1.
    Bare,
    /// Behind a length: since 3.2.
    Counted,
}

impl TextForm {
    /// All of them.
    pub(crate) const FORMS: [Self; 2] = [Self::Bare, Self::Counted];
}

fn flags(object: u64, target: &dyn Target) -> Option<u64> {
    (object >= LOWEST && object.is_multiple_of(8)).then(|| target.u64(object)).flatten()
}

/// Whether an object is of this type.
pub(crate) fn is(object: u64, kind: u64, target: &dyn Target) -> bool {
    flags(object, target).is_some_and(|flags| flags & TYPE == kind)
}

/// Whether an object is this one of the VM's own.
pub(crate) fn is_internal(object: u64, which: u64, target: &dyn Target) -> bool {
    flags(object, target).is_some_and(|flags| {
        flags & TYPE == INTERNAL && (flags >> INTERNAL_SHIFT) & INTERNAL_MASK == which
    })
}

/// The text of a string of at most `most` bytes.
pub(crate) fn text(string: u64, form: TextForm, most: u64, target: &dyn Target) -> Option<String> {
    let flags = flags(string, target).filter(|flags| flags & TYPE == STRING)?;
    let (length, start) = match (flags & FLAG_1 != 0, form) {
        (true, _) => (target.u64(string + 16)?, target.u64(string + 24)?),
        (false, TextForm::Bare) => ((flags >> LENGTH_SHIFT) & LENGTH_MASK, string + 16),
        (false, TextForm::Counted) => (target.u64(string + 16)?, string + 24),
    };
    if length > most {
        return None;
    }
    let bytes = target.bytes(start, usize::try_from(length).ok()?)?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The first item of an array that has two or three.
pub(crate) fn first_item(array: u64, target: &dyn Target) -> Option<u64> {
    let flags = flags(array, target).filter(|flags| flags & TYPE == ARRAY)?;
    let items = if flags & FLAG_1 != 0 { array + 16 } else { target.u64(array + 32)? };
    target.u64(items)
}
