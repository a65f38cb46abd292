//! Ruby (CRuby). A frame's `pointer` is the address of the instruction sequence that it runs.
//! Its `position` holds, in the lower 48 bits, the address of the next instruction. The cookie and
//! the upper 16 bits of `position` hold the address of the method entry that the frame belongs to,
//! which names the class and, as it leads back to the instruction sequence, tells whether
//! `pointer` still means the same.

use bytemuck::{Pod, Zeroable, must_cast, must_cast_ref};

use super::{InterpreterFrame, PARAMETERS};
use crate::size;

/// The number of this interpreter.
pub const KIND: u32 = 3;
/// Marks a parameter that this release does not have.
pub const ABSENT: u32 = u32::MAX;
/// User-space addresses have no more bits than this.
const ADDRESS_BITS: u32 = 48;
/// Method entries are aligned to 8 bytes, so these bits of their addresses are 0.
const ALIGNMENT_BITS: u32 = 3;

/// How Ruby keeps the calls of a thread: the parameters of its profile. All offsets are in bytes.
///
/// The path leads from the thread register to the thread's execution context and to its control
/// frames, which lie one after the other, innermost first, up to the end of the context's stack.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, Default, PartialEq, Eq, Hash)]
pub struct Parameters {
    /// From the thread register, the address of the execution context, as a signed number.
    pub slot: u32,
    /// Where `slot` has the address of a thread's descriptor instead: in that, the address of the
    /// execution context; otherwise [`ABSENT`].
    pub context: u32,
    /// From one control frame to the next.
    pub frame_size: u32,
    /// Always 0.
    pub reserved: [u32; 13],
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

/// A frame that runs this instruction sequence, at this instruction, of this method entry; 0: it
/// has none.
#[must_use]
#[inline(always)]
pub fn frame(sequence: u64, instruction: u64, method: u64) -> InterpreterFrame {
    let low = method >> ALIGNMENT_BITS;
    let position = (instruction & ((1 << ADDRESS_BITS) - 1)) | (low >> 32) << ADDRESS_BITS;
    InterpreterFrame { pointer: sequence, position, cookie: low as u32, kind: KIND }
}
