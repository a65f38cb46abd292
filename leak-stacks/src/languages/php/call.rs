//! Names calls by what the kernel programs have noted of them.

use crate::languages::call::Call;
use crate::languages::php::string::{MAX_NAME, MAX_PATH, Text, string};
use crate::languages::target::Target;
use crate::raw::InterpreterFrame;

/// In a class: its name.
const CLASS_NAME: u64 = 8;
/// What the engine adds to the name of a file for code in a string.
const EVALUATED: &str = " : eval()'d code";

/// How the words of a frame are divided: see `leak_common::interpreter::php::Call`.
const ADDRESS_BITS: u32 = 44;
const CLASS_BITS: u32 = u64::BITS - ADDRESS_BITS;
const HASH_BITS: u32 = 32 - (ADDRESS_BITS - 2 * CLASS_BITS);
const LINE_SHIFT: u32 = 8;

/// A call as it was noted: addresses, the line, and a hash that tells what was at the addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Noted {
    pub(crate) name: u64,
    pub(crate) file: u64,
    pub(crate) class: u64,
    pub(crate) line: u32,
    pub(crate) hash: u32,
}

impl From<InterpreterFrame> for Noted {
    fn from(frame: InterpreterFrame) -> Self {
        let InterpreterFrame { pointer, position, cookie, kind } = frame;
        let address = |word: u64| (word & ((1 << ADDRESS_BITS) - 1)) << 3;
        let class = pointer >> ADDRESS_BITS
            | position >> ADDRESS_BITS << CLASS_BITS
            | u64::from(cookie >> HASH_BITS) << (2 * CLASS_BITS);
        Self {
            name: address(pointer),
            file: address(position),
            class: class << 3,
            line: kind >> LINE_SHIFT,
            hash: cookie & ((1 << HASH_BITS) - 1),
        }
    }
}

impl Noted {
    /// Names the call; `None` when its strings are no longer what they were. PHP's own functions
    /// are in `engine`, the binary.
    pub(crate) fn call(self, engine: &str, target: &dyn Target) -> Option<Call> {
        let text = |address, most| match address {
            0 => Some(None),
            address => string(address, most, target).map(Some),
        };
        let (name, file) = (text(self.name, MAX_NAME)?, text(self.file, MAX_PATH)?);
        let is_of_php = file.is_none() && self.hash == hash(None, None);
        if !is_of_php && self.hash != hash(name.as_ref(), file.as_ref()) {
            return None;
        }
        let file = file.map(|file| file.shown());
        let function = match (name, &file) {
            (Some(name), _) => match self.class {
                0 => name.shown(),
                class => format!("{}::{}", class_name(class, target)?, name.shown()),
            },
            // Code outside of functions: of a string, or of a file, which others may include.
            (None, Some(file)) if file.ends_with(EVALUATED) => "eval".to_owned(),
            (None, Some(_)) => "{main}".to_owned(),
            (None, None) => return None,
        };
        Some(Call {
            function: Some(function),
            module: file.clone().or_else(|| Some(engine.to_owned())),
            file,
            line: Some(self.line).filter(|&line| line != 0),
            offset: 0,
        })
    }
}

/// The name of a class.
fn class_name(class: u64, target: &dyn Target) -> Option<String> {
    let name = target.u64(class.checked_add(CLASS_NAME)?)?;
    Some(string(name, MAX_NAME, target)?.shown())
}

/// What the kernel programs note of the texts of a function's name and its file; of those of PHP's
/// own, which stay, that of no texts.
fn hash(name: Option<&Text>, file: Option<&Text>) -> u32 {
    let name = name.map_or([0; 4], Text::start);
    let file = file.map_or([0; 2], |file| [file.hash, file.length()]);
    let sum = name.into_iter().chain(file).fold(0_u64, |sum, word| {
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        (sum ^ (sum >> 32) ^ word).wrapping_add(PRIME).wrapping_mul(PRIME)
    });
    (sum ^ (sum >> 32)) as u32 & ((1 << HASH_BITS) - 1)
}

/// What the kernel programs note of a call.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn noted(
    function: u64,
    opcode: u64,
    file: u64,
    target: &dyn Target,
) -> Option<InterpreterFrame> {
    use crate::languages::php::layout::LINE;
    use crate::raw::walker;
    let field = |offset| target.u64(function.checked_add(offset)?);
    let (name, class, is_script) = (field(8)?, field(16)?, field(0)? & 0xff != 1);
    let file = if is_script { field(file)? } else { 0 };
    let line = if is_script { target.u32(opcode.checked_add(LINE)?)? } else { 0 };
    let text = |address, most| match address {
        0 => None,
        address => string(address, most, target),
    };
    let name_text = if is_script { text(name, MAX_NAME) } else { None };
    let hash = hash(name_text.as_ref(), text(file, MAX_PATH).as_ref());
    Some(InterpreterFrame {
        pointer: name >> 3 | class >> 3 << ADDRESS_BITS,
        position: file >> 3 | class >> 3 >> CLASS_BITS << ADDRESS_BITS,
        cookie: hash | ((class >> 3 >> (2 * CLASS_BITS)) as u32) << HASH_BITS,
        kind: walker::PHP | line << LINE_SHIFT,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_every_bit_of_a_call() {
        let frame = InterpreterFrame {
            pointer: 0x7fff_1234_5678 >> 3 | 0x7ffe_8765_4320 >> 3 << 44,
            position: 0x7ffd_0000_0008 >> 3 | 0x7ffe_8765_4320 >> 23 << 44,
            cookie: 0x0abc_def0 | ((0x7ffe_8765_4320_u64 >> 43) as u32) << 28,
            kind: 3 | 0x00ab_cdef << 8,
        };
        let noted = Noted {
            name: 0x7fff_1234_5678,
            file: 0x7ffd_0000_0008,
            class: 0x7ffe_8765_4320,
            line: 0x00ab_cdef,
            hash: 0x0abc_def0,
        };
        assert_eq!(Noted::from(frame), noted);
    }
}
