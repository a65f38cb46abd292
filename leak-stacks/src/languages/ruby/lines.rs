//! From a place in a method's instructions to a line of its source.
//!
//! A method has a table of lines with an entry for each place where the line changes. Which entry
//! a place belongs to is told by a set of bits, of which those up to the place are counted: for the
//! first places the counts themselves are noted, for the others there are blocks of bits with
//! counts at their starts (`succ_index_lookup` in iseq.c).

use crate::languages::target::Target;

/// How many places have their counts noted, how many of them in a word, and in how many bits.
const NOTED: u64 = 54;
const NOTED_IN_WORD: u64 = 9;
const NOTED_BITS: u64 = 7;
/// Where the blocks begin.
const BLOCKS: u64 = NOTED / NOTED_IN_WORD * 8;
/// A block: the count before it, the counts before its words but the first, in 9 bits each, and its
/// words of bits.
const BLOCK_SIZE: u64 = 8 + 8 + 64;
const BLOCK_PLACES: u64 = 512;
/// Longest table that is believed.
const MAX_LINES: u32 = 1 << 20;

/// A table of lines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lines {
    /// Address of the entries, each of which begins with a line.
    pub(crate) entries: u64,
    /// How many there are.
    pub(crate) count: u32,
    /// Size of one.
    pub(crate) entry_size: u32,
    /// Address of the set of bits.
    pub(crate) places: u64,
}

impl Lines {
    /// The line of the instruction at `place`, which counts words.
    pub(crate) fn at(&self, place: u64, target: &dyn Target) -> Option<u32> {
        let index = match self.count {
            0 => return None,
            1 => 0,
            _ => entry_at(self.places, place, target)?,
        };
        if index >= u64::from(self.count.min(MAX_LINES)) {
            return None;
        }
        let offset = index.checked_mul(self.entry_size.into())?;
        let line = target.u32(self.entries.checked_add(offset)?)?;
        (line > 0 && i32::try_from(line).is_ok()).then_some(line)
    }
}

/// Number of the entry for a place.
fn entry_at(table: u64, place: u64, target: &dyn Target) -> Option<u64> {
    if place < NOTED {
        let word = target.u64(table.checked_add(place / NOTED_IN_WORD * 8)?)?;
        let count = word >> (place % NOTED_IN_WORD * NOTED_BITS) & ((1 << NOTED_BITS) - 1);
        return count.checked_sub(1);
    }
    let (number, place) = ((place - NOTED) / BLOCK_PLACES, (place - NOTED) % BLOCK_PLACES);
    let block = table.checked_add(BLOCKS)?.checked_add(number.checked_mul(BLOCK_SIZE)?)?;
    let before_block = u64::from(target.u32(block)?);
    let before_word = match place / 64 {
        0 => 0,
        word => target.u64(block.checked_add(8)?)? >> ((word - 1) * 9) & 0x1ff,
    };
    let bits = target.u64(block.checked_add(16 + place / 64 * 8)?)?;
    let in_word = u64::from((bits << (63 - place % 64)).count_ones());
    (before_block + before_word + in_word).checked_sub(1)
}
