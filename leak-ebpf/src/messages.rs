//! Walking over PostgreSQL's messages: a type of one byte, then a length of four that counts itself.
//!
//! Needed to know how many `ReadyForQuery` a client may expect: with several requests under way, the
//! first answer's does not make the connection idle.

use leak_common::connection::LOST;

use crate::payload::Payload;

/// Most messages that are looked at in one call: the verifier follows every one.
const MAX_MESSAGES: u32 = 24;
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
///
/// Both are in a map, and types are bits, for the verifier's sake: it would follow every number of
/// messages that it knows of, and every type, on a path of its own.
#[inline(always)]
pub(crate) fn walk(payload: &Payload, left: &mut u64, count: &mut u32, wanted: u64) {
    let mut offset = *left;
    store(left, LOST);
    let Some(buffer) = payload.only_buffer() else { return };
    let mut looked_at = 0;
    while looked_at < MAX_MESSAGES {
        if offset >= buffer.len {
            return store(left, offset - buffer.len);
        }
        if buffer.len - offset < HEADER {
            return;
        }
        let Some((kind, length)) = payload.message_at(buffer.base.wrapping_add(offset)) else {
            return;
        };
        if length < LEAST_LENGTH {
            return;
        }
        // SAFETY: the reference is valid.
        let before = unsafe { core::ptr::read_volatile(count) };
        store(count, before.wrapping_add(is_any(wanted, kind)));
        offset += 1 + u64::from(length);
        looked_at += 1;
    }
}

/// Stores in memory, not in a register.
#[inline(always)]
fn store<T>(to: &mut T, value: T) {
    // SAFETY: the reference is valid.
    unsafe { core::ptr::write_volatile(to, value) }
}
