//! Finds where a stack walk has stepped over calls.
//!
//! Code that was compiled at run time has no unwind information, so it is left by its frame pointer.
//! Some compilers use that register for something else, as the JVM's do unless they are told
//! `-XX:+PreserveFramePointer`: it then still points to the frame of a caller's caller, and the walk
//! goes on there as if nothing were missing. What it has stepped over lies on the stack, though.

use super::raw::RawStack;

/// Most bytes of one frame that are searched.
const MAX_FRAME: u64 = 16 << 10;

/// How many of a stack's `addresses` (the instruction pointer, then return addresses less one) are
/// sure to be neighbours: those up to the first after which calls are missing.
///
/// `is_compiled` says whether an address lies in code that was compiled at run time, `is_return`
/// whether it is where a call returns to.
pub(super) fn sure_frames(
    raw: &RawStack,
    addresses: &[u64],
    is_compiled: impl Fn(u64) -> bool,
    mut is_return: impl FnMut(u64) -> bool,
) -> usize {
    // Where on the stack the frame of the current address begins.
    let mut frame = raw.sp;
    for (index, pair) in addresses.windows(2).enumerate() {
        let &[callee, caller] = pair else { break };
        let return_address = caller.wrapping_add(1);
        let words = (0..MAX_FRAME / 8).map_while(|word| {
            let at = frame.checked_add(word * 8)?;
            Some((at, raw.word(at)?))
        });
        let mut between = Vec::new();
        let mut found = None;
        for (at, word) in words {
            if word == return_address {
                found = Some(at);
                break;
            }
            between.push(word);
        }
        // A frame larger than that is let pass.
        let Some(place) = found else { continue };
        // Leftovers of the walk's own calls are no others.
        let is_other = |word: u64| !addresses.contains(&word.wrapping_sub(1));
        let mut stepped_over =
            between.into_iter().filter(|&word| is_compiled(word) && is_other(word));
        if is_compiled(callee) && stepped_over.any(&mut is_return) {
            return index + 1;
        }
        frame = place + 8;
    }
    addresses.len()
}

/// Whether the bytes before an address end in a call, as x86-64 encodes it: to a place relative to
/// here, in a register, or in memory.
pub(super) fn ends_in_call(before: &[u8; 7]) -> bool {
    let [a, b, c, d, e, f, g] = *before;
    let in_register = |modrm: u8| modrm & 0xf8 == 0xd0;
    let in_memory = |modrm: u8, kind: u8| modrm & 0xf8 == kind && modrm & 7 != 4;
    c == 0xe8
        || (f == 0xff && (in_register(g) || in_memory(g, 0x10)))
        || (e == 0xff && in_memory(f, 0x50))
        || (d == 0xff && e & 0xf8 == 0x50)
        || (b == 0xff && (in_memory(c, 0x90) || c == 0x15))
        || (a == 0xff && b & 0xf8 == 0x90)
}

#[cfg(test)]
mod tests {
    use super::super::tests::copied_words;
    use super::*;

    /// Addresses from 0x1000 to 0x2000 are compiled code, those that end in 5 return addresses.
    fn sure(words: &[u64], addresses: &[u64]) -> usize {
        let raw = copied_words(words);
        sure_frames(&raw, addresses, |at| (0x1000..0x2000).contains(&at), |at| at % 16 == 5)
    }

    #[test]
    fn a_call_that_was_stepped_over_ends_what_is_sure() {
        let whole = [7, 0x1105, 9, 0x1205, 0x5005];
        assert_eq!(sure(&whole, &[0x1000, 0x1104, 0x1204, 0x5004]), 4);
        // By the frame pointer the walk went from 0x1000 straight to 0x1204, or beyond.
        assert_eq!(sure(&whole, &[0x1000, 0x1204, 0x5004]), 1);
        assert_eq!(sure(&whole, &[0x9000, 0x1104, 0x5004]), 2);
        // An address in the code that no call returns to.
        assert_eq!(sure(&[0x1110, 0x1105], &[0x1000, 0x1104]), 2);
        // Native code has unwind information; what lies in its frames is left over.
        assert_eq!(sure(&[0x1105, 0x1205], &[0x9000, 0x1204]), 2);
        assert_eq!(sure(&[1, 2, 3], &[0x1000, 0x1104]), 2);
        assert_eq!(sure(&[], &[0x1000]), 1);
        assert_eq!(sure(&[], &[]), 0);
    }

    #[test]
    fn calls_by_their_bytes() {
        assert!(ends_in_call(&[0, 0, 0xe8, 1, 2, 3, 4]), "call rel32");
        assert!(ends_in_call(&[0, 0, 0, 0, 0x41, 0xff, 0xd2]), "call r10");
        assert!(ends_in_call(&[0, 0, 0, 0, 0, 0xff, 0x10]), "call [rax]");
        assert!(ends_in_call(&[0, 0, 0, 0, 0xff, 0x50, 8]), "call [rax+8]");
        assert!(ends_in_call(&[0, 0xff, 0x90, 1, 2, 0, 0]), "call [rax+disp32]");
        assert!(!ends_in_call(&[0x90; 7]) && !ends_in_call(&[0xcc; 7]) && !ends_in_call(&[0; 7]));
    }
}
