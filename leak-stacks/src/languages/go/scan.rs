//! Looks through what a binary's segments hold.

use std::fs::File;

use crate::binary::elf::{Elf, Segment, read_exact};

/// Most bytes of a file that are looked through.
const MAX_SCAN: u64 = 128 << 20;
const CHUNK: usize = 1 << 20;

/// Whether a segment holds data that a program may write to, if only until it is relocated.
pub(crate) fn is_data(segment: &Segment) -> bool {
    segment.writable
}

/// Shows `look` what segments hold at every address that is a multiple of `step`: at least `step`
/// bytes.
pub(crate) fn scan<T>(
    elf: &Elf,
    file: &File,
    wanted: impl Fn(&Segment) -> bool,
    step: usize,
    mut look: impl FnMut(u64, &[u8]) -> Option<T>,
) -> Option<T> {
    let mut left = MAX_SCAN;
    for segment in elf.segments.iter().filter(|segment| wanted(segment)) {
        let skipped = segment.address.wrapping_neg() % step as u64;
        let mut at = skipped;
        while at < segment.file_size && left > 0 {
            let length = (segment.file_size - at).min(CHUNK as u64).min(left);
            let offset = segment.offset.checked_add(at)?;
            let Ok(data) = read_exact(file, offset, usize::try_from(length).ok()?) else { break };
            for (index, bytes) in data.chunks_exact(step).enumerate() {
                let within = index * step;
                let address = segment.address.checked_add(at)?.checked_add(within as u64)?;
                if let Some(found) = look(address, bytes) {
                    return Some(found);
                }
            }
            at += length;
            left -= length;
        }
    }
    None
}
