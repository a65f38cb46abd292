//! Walking over PostgreSQL's messages: a type of one byte, then a length of four that counts itself.
//!
//! Needed to know how many `ReadyForQuery` a client may expect: with several requests under way, the
//! first answer's does not make the connection idle.

use leak_common::connection::LOST;

use crate::payload::{self, Payload, forget};

/// Most messages that are looked at in one call: the verifier follows every one.
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

/// Walks over the messages of `payload` and adds those of the `wanted` types to `count`. `left` is how
/// many bytes belong to a message that began earlier, then how many of the last one are still to
/// come. It gets lost in more messages than it looks at, and in bytes that lie in several buffers.
#[inline(always)]
pub(crate) fn walk(payload: &Payload, left: &mut u64, count: &mut u32, wanted: u64) {
    match payload.only_buffer() {
        Some(buffer) => {
            walk_messages(buffer.base, buffer.len, left, count, wanted);
        }
        None => *left = LOST,
    }
}

/// The same in one buffer. A global function, for the reason of [`crate::python::walk_python`].
///
/// Reads several messages at once where they are short: what a read costs hardly depends on how much is read.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn walk_messages(
    base: u64,
    len: u64,
    left: *mut u64,
    count: *mut u32,
    wanted: u64,
) -> u32 {
    // SAFETY: callers pass references; the verifier has them checked for null all the same.
    let Some((left, count)) = (unsafe { left.as_mut().zip(count.as_mut()) }) else { return 0 };
    let mut offset = *left;
    *left = LOST;
    let mut window = [0u8; WINDOW];
    // Where in the buffer the window begins: behind, so that it is read.
    let mut begin = offset.wrapping_add(1);
    let mut found = 0;
    let mut looked_at = 0;
    while looked_at < MAX_MESSAGES {
        // Otherwise the verifier would follow each way through the messages before.
        (offset, begin) = (forget(offset, base), forget(begin, base));
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
