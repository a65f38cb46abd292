//! PHP. Its functions do not last: a closure's is freed after the call, and an included file's once
//! it has run. So a frame does not note the function but what names it, which lasts as long as the
//! request, or as opcache: the strings of its name and its file, its class, and its line. They fill
//! the frame to the last bit: see [`Call`].

use bytemuck::{Pod, Zeroable, must_cast, must_cast_ref};

use super::{InterpreterFrame, PARAMETERS};
use crate::size;

/// The number of this interpreter.
pub const KIND: u32 = 3;
/// Marks a parameter that does not apply.
pub const ABSENT: u32 = u32::MAX;

/// In a `zend_execute_data` of every release since 7.0: the opcode, the function, the caller.
pub const OPCODE: usize = 0;
/// See [`OPCODE`].
pub const FUNCTION: usize = 24;
/// See [`OPCODE`].
pub const PREVIOUS: usize = 48;
/// In an opcode, its line, 32 bits.
pub const LINE: u64 = 24;
/// The kind of a `zend_function` that is PHP's own or an extension's: its first byte.
pub const INTERNAL: u64 = 1;
/// In a `zend_string`, its hash; its length and its bytes follow.
pub const HASH: u64 = 8;

/// How PHP keeps the calls of a thread: the parameters of its profile. All offsets are in bytes.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, Default, PartialEq, Eq, Hash)]
pub struct Parameters {
    /// The lower half of the address of the pointer to the current frame; where each thread has its
    /// own, of its distance from what `slot` holds.
    pub current_low: u32,
    /// The upper half.
    pub current_high: u32,
    /// From the thread register, as a signed number, the slot with the address of the thread's
    /// globals; [`ABSENT`]: the process has only one set of them.
    pub slot: u32,
    /// In the `zend_function` of a script's function, the file's name.
    pub file: u32,
    /// Always 0.
    pub reserved: [u32; 12],
}
size!(Parameters, 4 * PARAMETERS);

impl Parameters {
    /// The parameters of a profile of this [`KIND`].
    #[must_use]
    #[inline(always)]
    pub fn view(raw: &[u32; PARAMETERS]) -> &Self {
        must_cast_ref(raw)
    }

    /// The parameters as a profile holds them.
    #[must_use]
    pub fn raw(self) -> [u32; PARAMETERS] {
        must_cast(self)
    }
}

/// The hash of a string, its length and its first bytes, as they lie in memory from [`HASH`] on;
/// zeroes for none.
pub type Text = [u64; 5];

/// A call as it is noted. Addresses are multiples of 8 below 2^47, so each has 44 bits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Call {
    /// The string with the function's name; 0: code of a file, outside of functions.
    pub name: u64,
    /// The string with the file's name; 0: a function of PHP's own.
    pub file: u64,
    /// The class; 0: none.
    pub class: u64,
    /// The line that is executed; 0: none.
    pub line: u32,
}

const ADDRESS_BITS: u32 = 44;
/// How many bits of the class are beside the name, and as many beside the file; the rest are in the
/// cookie.
const CLASS_BITS: u32 = u64::BITS - ADDRESS_BITS;
const HASH_BITS: u32 = 32 - (ADDRESS_BITS - 2 * CLASS_BITS);
/// Where the line begins in the frame's kind.
const LINE_SHIFT: u32 = 8;

impl Call {
    /// The frame of this call, of which these are the texts of its name and its file. PHP hashes
    /// the names of all files; those of functions when it needs to, so their hash does not count.
    #[must_use]
    #[inline(always)]
    pub const fn frame(self, name: &Text, file: &Text) -> InterpreterFrame {
        let class = self.class >> 3;
        let hash = mix_text(mix(mix_text(0, name), file[0]), file);
        let hash = (hash ^ (hash >> 32)) as u32 & ((1 << HASH_BITS) - 1);
        InterpreterFrame {
            pointer: self.name >> 3 | class << ADDRESS_BITS,
            position: self.file >> 3 | class >> CLASS_BITS << ADDRESS_BITS,
            cookie: hash | ((class >> (2 * CLASS_BITS)) as u32) << HASH_BITS,
            kind: KIND | self.line << LINE_SHIFT,
        }
    }
}

#[inline(always)]
const fn mix_text(sum: u64, text: &Text) -> u64 {
    let [_, length, first, second, third] = *text;
    let sum = mix(mix(sum, length), start_of(first, length));
    let sum = mix(sum, start_of(second, length.saturating_sub(8)));
    mix(sum, start_of(third, length.saturating_sub(16)))
}

/// A step of FNV-1a that takes a word, not a byte.
#[inline(always)]
const fn mix(sum: u64, word: u64) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    (sum ^ (sum >> 32) ^ word).wrapping_add(PRIME).wrapping_mul(PRIME)
}

/// The first bytes of a word, as they lie in memory; the others do not count.
#[inline(always)]
const fn start_of(word: u64, bytes: u64) -> u64 {
    if bytes >= 8 { word } else { word & ((1 << (bytes * 8)) - 1) }
}
