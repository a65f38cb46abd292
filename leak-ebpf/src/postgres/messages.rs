//! Walks over PostgreSQL's messages: a type of one byte, then a length of four that counts itself.
//!
//! This tells how many `ReadyForQuery` a client may expect: with several requests under way, the
//! one of the first answer does not make the connection idle.

use super::parser::LOST;
use crate::kernel::payload::{self, Payload};
use crate::verifier::hide;

/// Most messages that are read in one call: the verifier follows every one.
const MAX_MESSAGES: u32 = 24;
/// Bytes that are read at once.
const WINDOW: usize = 64;
/// Type and length.
const HEADER: u64 = 5;
/// The length counts its own four bytes.
const LEAST_LENGTH: u32 = 4;

/// The types of messages, as bits: a type's low six bits are its number, different for all types.
pub(crate) const fn types(letters: &[u8]) -> u64 {
    let mut bits = 0;
    let mut index = 0;
    while index < letters.len() {
        bits |= 1 << (letters[index] & 63);
        index += 1;
    }
    bits
}

/// 1 if a message is of one of the `wanted` types, else 0.
#[inline(always)]
pub(crate) fn is_any(wanted: u64, kind: u8) -> u32 {
    (wanted >> (kind & 63)) as u32 & 1
}

/// Walks over the messages of `payload` and adds those of the `wanted` types to `count`. Before,
/// `left` is how many bytes belong to a message that began earlier; afterwards, how many of the
/// last message are still to come. That becomes [`LOST`] after too many messages, and with several
/// buffers.
#[inline(always)]
pub(crate) fn walk(payload: &Payload, left: &mut u64, count: &mut u32, wanted: u64) {
    match payload.only_buffer() {
        Some(buffer) => {
            walk_messages(buffer.base, buffer.len, left, count, wanted);
        }
        None => *left = LOST,
    }
}

/// The same in one buffer. A global function.
///
/// Reads several messages at once where they are short: the cost of a read hardly depends on its
/// length.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn walk_messages(
    base: u64,
    len: u64,
    left: *mut u64,
    count: *mut u32,
    wanted: u64,
) -> u32 {
    // SAFETY: callers pass references.
    let Some((left, count)) = (unsafe { left.as_mut().zip(count.as_mut()) }) else { return 0 };
    let mut offset = *left;
    *left = LOST;
    let mut window = [0u8; WINDOW];
    // Where in the buffer the window begins: at first behind `offset`, so that it is read.
    let mut begin = offset.wrapping_add(1);
    let mut found = 0;
    let mut looked_at = 0;
    while looked_at < MAX_MESSAGES {
        // Otherwise the verifier would follow each path through the messages before.
        (offset, begin) = (hide(offset, base), hide(begin, base));
        if offset >= len {
            *left = offset - len;
            break;
        }
        if len - offset < HEADER {
            break;
        }
        let mut place = offset.wrapping_sub(begin);
        if place > WINDOW as u64 - HEADER {
            if payload::copy(base.wrapping_add(offset), len - offset, &mut window) == 0 {
                break;
            }
            (begin, place) = (offset, 0);
        }
        let byte = |at: usize| window[(place as usize + at) % WINDOW];
        let length = u32::from_be_bytes([byte(1), byte(2), byte(3), byte(4)]);
        if length < LEAST_LENGTH {
            break;
        }
        found += is_any(wanted, byte(0));
        offset += 1 + u64::from(length);
        looked_at += 1;
    }
    *count = count.wrapping_add(found);
    0
}
