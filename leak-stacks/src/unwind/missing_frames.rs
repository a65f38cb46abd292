//! Detects frames that a walk by frame pointers has skipped.
//!
//! Code that was compiled at run time has no unwind information, so it is left by its frame
//! pointer. Some compilers use that register for something else, as the JVM's do without
//! `-XX:+PreserveFramePointer`. It then still points to the frame of an outer caller, and the walk
//! goes on there as if nothing were missing. The skipped frames are still on the stack, though.

use crate::raw::RawStack;
use crate::unwind::walk::WalkedFrame;

/// Most bytes of one frame that are searched.
const MAX_FRAME: u64 = 16 << 10;

/// How many of a stack's `addresses` (the instruction pointer, then return addresses less one) are
/// sure to be neighbours: those up to the first after which calls are missing. `is_compiled` says
/// whether an address lies in code that was compiled at run time.
///
/// A function that leaves the frame pointer alone still saves it beside its return address. So a
/// call that was stepped over has left the very frame pointer that led over it; a leftover of an
/// earlier call mostly has another, so what is sure may be said to end early, but not late.
pub(crate) fn certain_frames(
    raw: &RawStack,
    frames: &[WalkedFrame],
    is_compiled: impl Fn(u64) -> bool,
) -> usize {
    let is_known = |address| frames.iter().any(|frame| frame.address == address);
    // Where on the stack the frame of the current address begins.
    let mut frame = raw.sp;
    for (index, pair) in frames.windows(2).enumerate() {
        let &[callee, caller] = pair else { break };
        let words = (0..MAX_FRAME / 8).map_while(|word| {
            let at = frame.checked_add(word * 8)?;
            Some((at, raw.word(at)?))
        });
        let mut returns = Vec::new();
        let mut before = 0;
        let mut found = None;
        for (at, word) in words {
            if word == caller.address.wrapping_add(1) {
                found = Some(at);
                break;
            }
            // The walk's own calls may have left a copy further in, which was taken for their
            // frame.
            let is_other = !is_known(word.wrapping_sub(1));
            if is_other && is_compiled(callee.address) && is_compiled(word) {
                returns.push(before);
            }
            before = word;
        }
        // A frame larger than that is let pass.
        let Some(place) = found else { continue };
        if callee.left_by.is_none() && returns.contains(&place.wrapping_sub(8)) {
            return index + 1;
        }
        frame = place + 8;
    }
    frames.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::copied_words;

    /// Addresses from 0x1000 to 0x2000 are compiled code. The stack begins at 0x7000.
    fn sure(words: &[u64], addresses: &[u64]) -> usize {
        let frame = |&address| WalkedFrame { address, left_by: None };
        let frames: Vec<_> = addresses.iter().map(frame).collect();
        certain_frames(&copied_words(words), &frames, |at| (0x1000..0x2000).contains(&at))
    }

    #[test]
    fn a_call_that_was_stepped_over_ends_what_is_sure() {
        let kept = 0x7028;
        // Three calls that left the frame pointer alone, and the frame that it points to.
        let words = [7, kept, 0x1105, kept, 0x1205, 0x7f00, 0x1305];
        assert_eq!(sure(&words, &[0x1000, 0x1304, 0x5004]), 1);
        assert_eq!(sure(&words, &[0x9000, 0x1104, 0x1304, 0x5004]), 2);
        // The walk has missed none.
        assert_eq!(sure(&words, &[0x1000, 0x1104, 0x1204, 0x1304]), 4);
        // What earlier calls have left is not of this frame pointer, or in native code's frame.
        assert_eq!(sure(&[0x7000, 0x1105, 0x7100, 0x1205], &[0x1000, 0x1204]), 2);
        assert_eq!(sure(&words, &[0x9000, 0x1304]), 2);
        let copied = [0x1105, kept, 0x1105, 7, 0x7f00, 0x1305];
        assert_eq!(sure(&copied, &[0x1000, 0x1104, 0x1304]), 3);
        assert_eq!(sure(&[1, 2, 3], &[0x1000, 0x1104]), 2);
        assert_eq!((sure(&[], &[0x1000]), sure(&[], &[])), (1, 0));
    }
}
