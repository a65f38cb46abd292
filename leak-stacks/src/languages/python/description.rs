//! What an interpreter since 3.13 says of itself.
//!
//! `_PyRuntime` begins with a `_Py_DebugOffsets` (pycore_runtime.h, later pycore_debug_offsets.h):
//! one group of words for each structure, its size and then offsets in it. Every release has
//! inserted words. So a group is found by how its structure has begun ever since, and sums that
//! must come out tell whether it is the right one. A release that keeps these is read without
//! having been heard of; any other is not recognised.

use std::ops::Range;

use crate::bytes::u64_at;
use crate::languages::python::layout::{ABSENT, CodeLayout, Layout, ObjectLayout, V3_12};

const COOKIE: &[u8] = b"xdebugpy";
/// The first release that has it.
const FIRST: u64 = 0x030d;
/// Most words that are looked at; 3.15 has 124.
const WORDS: usize = 160;
/// Largest of the interpreter's structures: those of its whole state, and all others.
const LARGE: u64 = 1 << 20;
const SMALL: u64 = 16 << 10;
/// Size of `PyObject`; without the global lock, it counts references in two places.
const OBJECT: u64 = 16;
const OBJECT_UNLOCKED: u64 = 32;

/// A description's words.
struct Words(Vec<u64>);

impl Layout {
    /// How many bytes of `_PyRuntime` [`Layout::described`] takes.
    pub(crate) const DESCRIPTION: usize = WORDS * 8;

    /// The layout that a process describes at the start of its `_PyRuntime`.
    pub(crate) fn described(description: &[u8]) -> Option<Self> {
        if !description.starts_with(COOKIE) {
            return None;
        }
        let words = Words((0..WORDS).map_while(|at| u64_at(description, at * 8)).collect());
        if words.at(1)? >> 16 < FIRST {
            return None;
        }
        let object = match words.at(2)? {
            0 => OBJECT,
            1 => OBJECT_UNLOCKED,
            _ => return None,
        };
        let (runtime, interpreter) = (3, 6);
        let thread = words.find(interpreter + 4..WORDS, |w| matches!(w, [_, 0, 8, 16, ..]))?;
        let frame = words.find(thread + 5..WORDS, |w| matches!(w, [_, 8, 0, ..]))?;
        let code = words.find(frame + 6..WORDS, is_code)?;
        let base = words.find(code + 10..WORDS, |w| w.starts_with(&[object, object - 8]))?;
        // The bytecode's copies are told of last, if at all.
        let copies = match base - code {
            10 => None,
            _ => words.at(code + 10).filter(|&at| at != 0),
        };
        let sized = object + 8;
        // The bytes of a `bytes` object follow a hash, the bits of a `str` object do, too.
        let after_hash = sized + 8;
        words.find(base..WORDS, |w| w.get(1..3) == Some(&[object, after_hash]))?;
        let text = words.find(base..WORDS, |w| {
            let Some(&[size, bits, length, ascii_size]) = w.first_chunk() else { return false };
            // The forms add the text's form in UTF-8, that form's length, and an address.
            (bits, length) == (after_hash, object) && size.checked_sub(24) == Some(ascii_size)
        })?;
        let within = |group, index, most| {
            let (size, offset) = (words.at(group)?, words.at(group + index)?);
            (size <= most && offset < size).then(|| u32::try_from(offset).ok()).flatten()
        };
        let in_code = |index| within(code, index, SMALL);
        let ascii_size = within(text, 3, SMALL)?;
        let bytecode = in_code(9)?;
        let object = u32::try_from(object).ok()?;
        Some(Self {
            interpreters: within(runtime, 2, LARGE)?,
            threads: within(interpreter, 3, LARGE)?,
            frame: within(thread, 4, SMALL)?,
            control_frame: ABSENT,
            previous: within(frame, 1, SMALL)?,
            code_of_frame: within(frame, 2, SMALL)?,
            instruction_of_frame: within(frame, 3, SMALL)?,
            owner: within(frame, 5, SMALL)?,
            code: CodeLayout {
                file: in_code(1)?,
                name: in_code(2)?,
                qualified_name: Some(in_code(3)?),
                lines: in_code(4)?,
                first_line: in_code(5)?,
                bytecode,
                copies: copies.and_then(|at| u32::try_from(at).ok()).filter(|&at| at < bytecode),
                size: bytecode,
            },
            object: ObjectLayout {
                type_of: object - 8,
                size: object,
                after_hash: object + 16,
                ascii_size,
                unicode_size: ascii_size + 16,
            },
            ..V3_12
        })
    }
}

/// Whether the description of code objects begins here: file, name, qualified name and lines are
/// neighbours, and the bytecode comes last.
fn is_code(words: &[u64]) -> bool {
    let Some(&[size, file, name, qualified_name, lines, _, _, _, _, bytecode]) =
        words.first_chunk()
    else {
        return false;
    };
    file < SMALL
        && [name, qualified_name, lines] == [file + 8, file + 16, file + 24]
        && bytecode < SMALL
        && size == bytecode + 8
}

impl Words {
    fn at(&self, index: usize) -> Option<u64> {
        self.0.get(index).copied()
    }

    /// The first place from which on the words are so.
    fn find(&self, places: Range<usize>, are_so: impl Fn(&[u64]) -> bool) -> Option<usize> {
        places.into_iter().find(|&at| self.0.get(at..).is_some_and(&are_so))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The beginnings of the descriptions of 3.13, 3.14 and 3.15, by groups, and of 3.13 without
    /// its global lock.
    fn description(version: u64, unlocked: bool, groups: &[&[u64]]) -> Vec<u8> {
        let head = [u64::from_le_bytes(*b"xdebugpy"), version << 16 | 0xf0, unlocked.into()];
        let words = head.iter().chain(groups.iter().copied().flatten());
        let mut bytes: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).collect();
        bytes.resize(Layout::DESCRIPTION, 0);
        bytes
    }

    const RUNTIME: &[u64] = &[346_000, 520, 632];

    fn of_3_13() -> Vec<u8> {
        let interpreter = [140_000, 7248, 7240, 7344, 7720, 7840, 7872, 7880, 20, 21, 0, 22, 23];
        let thread = [312, 0, 8, 16, 72, 152, 160, 232, 32];
        let code = [208, 112, 120, 128, 136, 68, 52, 96, 104, 200];
        let texts = [40, 16, 32, 64, 32, 16, 40, 240, 48];
        let frame = [80, 8, 0, 56, 72, 70];
        let groups: [&[u64]; 7] = [RUNTIME, &interpreter, &thread, &frame, &code, &[16, 8], &texts];
        description(0x030d, false, &groups)
    }

    fn of_3_15(version: u64, added: &[u64]) -> Vec<u8> {
        let interpreter = [150_000, 72, 64, 168, 0, 7344, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5];
        let thread = [888, 0, 8, 16, 72, 80, 88, 96, 176, 184, 256, 32, 36, 40, 104, 112];
        let code = [216, 112, 120, 128, 136, 68, 52, 96, 104, 208, 0];
        let texts = [40, 16, 32, 64, 32, 16, 40, 56];
        let frame = [88, 8, 0, 56, 80, 74, 64, 0];
        let groups: [&[u64]; 10] =
            [RUNTIME, &interpreter, added, &thread, added, &frame, &code, &[16, 8], added, &texts];
        description(version, false, &groups)
    }

    #[test]
    fn releases_are_read_by_what_they_have_in_common() {
        let old = Layout::described(&of_3_13()).unwrap();
        assert_eq!((old.interpreters, old.threads, old.frame, old.owner), (632, 7344, 72, 70));
        assert_eq!((old.code.bytecode, old.code.copies), (200, None));
        assert_eq!(old.object, V3_12.object);
        let new = Layout::described(&of_3_15(0x030f, &[])).unwrap();
        assert_eq!((new.threads, new.frame, new.owner), (168, 72, 74));
        assert_eq!((new.code.file, new.code.bytecode, new.code.copies), (112, 208, None));
    }

    #[test]
    fn a_release_that_tells_more_needs_nothing_new() {
        let known = Layout::described(&of_3_15(0x030f, &[])).unwrap();
        assert_eq!(Layout::described(&of_3_15(0x0310, &[304, 4, 4])), Some(known));
    }

    #[test]
    fn without_the_global_lock_objects_are_larger() {
        let code = [240, 136, 144, 152, 160, 92, 76, 120, 128, 232, 224];
        let texts = [56, 32, 48, 80, 48, 32, 56, 1];
        let interpreter = [150_000, 72, 64, 168, 0, 7344];
        let thread = [888, 0, 8, 16, 72, 80];
        let frame = [88, 8, 0, 56, 80, 78, 64, 72];
        let groups: [&[u64]; 7] =
            [RUNTIME, &interpreter, &thread, &frame, &code, &[32, 24], &texts];
        let layout = Layout::described(&description(0x030e, true, &groups)).unwrap();
        assert_eq!(layout.code.copies, Some(224));
        let object = layout.object;
        assert_eq!((object.type_of, object.size, object.after_hash), (24, 32, 48));
        assert_eq!((object.ascii_size, object.unicode_size), (56, 72));
        // It says that it has the lock.
        assert_eq!(Layout::described(&description(0x030e, false, &groups)), None);
    }

    #[test]
    fn what_does_not_add_up_is_not_recognised() {
        let good = of_3_13();
        for word in 0..good.len() / 8 {
            for wrong in [1u64, 1 << 40, u64::MAX] {
                let mut bad = good.clone();
                bad[word * 8..word * 8 + 8].copy_from_slice(&wrong.to_le_bytes());
                if let Some(layout) = Layout::described(&bad) {
                    assert!(layout.interpreters < 1 << 20 && layout.code.size < 1 << 14);
                    assert_eq!(layout.object, V3_12.object);
                }
            }
        }
        for length in 0..good.len() {
            let _ = Layout::described(&good[..length]);
        }
        assert_eq!(Layout::described(&of_3_15(0x030c, &[])), None, "it has none");
    }
}
