//! PHP. Its functions do not last: a closure's is freed after the call, and an included file's once
//! it has run. So a frame does not note the function but what names it, which lasts as long as the
//! request, or as opcache: the strings of its name and its file, its class, and its line. They fill
//! the frame to the last bit: see [`Call`].

use bytemuck::{Pod, Zeroable, must_cast, must_cast_ref};

use super::{InterpreterFrame, PARAMETERS};
use crate::size;

/// The number of this interpreter.
pub const KIND: u32 = 4;
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
/// In the first word of such a function: it has been made for a single call.
pub const TRAMPOLINE: u64 = 1 << (32 + 18);
/// In a `zend_string`, its hash; its length follows.
pub const HASH: u64 = 8;
/// In a `zend_string`, its length; its bytes follow.
pub const LENGTH: u64 = 16;

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

/// What tells a function's name from others: its length and its first bytes, as they lie in memory
/// from [`LENGTH`] on. Zeroes without a name, and for functions of PHP's own, which stay. PHP
/// hashes such names only when it needs to.
pub type NameText = [u64; 4];
/// What tells a file's name from others: its hash and its length, as they lie in memory from
/// [`HASH`] on. Zeroes without a file.
pub type FileText = [u64; 2];

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
    /// The frame of this call.
    #[must_use]
    #[inline(always)]
    pub const fn frame(self, name: NameText, file: FileText) -> InterpreterFrame {
        let class = self.class >> 3;
        let [length, first, second, third] = name;
        let mut hash = mix(mix(0, length), start_of(first, length));
        hash = mix(hash, start_of(second, length.saturating_sub(8)));
        hash = mix(hash, start_of(third, length.saturating_sub(16)));
        hash = mix(mix(hash, file[0]), file[1]);
        let hash = (hash ^ (hash >> 32)) as u32 & ((1 << HASH_BITS) - 1);
        InterpreterFrame {
            pointer: self.name >> 3 | class << ADDRESS_BITS,
            position: self.file >> 3 | class >> CLASS_BITS << ADDRESS_BITS,
            cookie: hash | ((class >> (2 * CLASS_BITS)) as u32) << HASH_BITS,
            kind: KIND | self.line << LINE_SHIFT,
        }
    }
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
