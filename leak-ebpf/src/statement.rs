//! The first word of a statement, as far as it says that silence is what a connection is for.
//!
//! A connection that listens for notifications is silent by design; `UNLISTEN *` and `DISCARD ALL`,
//! with which pools clean up, make it one like any other.

use leak_common::connection::{Connection, flag};

use crate::payload::{self, Buffer, Head, Payload};

/// Where the text of a simple query begins, and in `Parse` the name that comes before it.
const TEXT: u64 = 5;
/// Most bytes that are searched for the first word, names, blanks and comments among them.
const WINDOW: usize = 64;
/// The word and what comes after it.
const WORD: usize = 16;

/// Where a search stands: before the word, or at it.
mod at {
    /// Nowhere: nothing is searched for.
    pub(super) const NOTHING: u32 = 0;
    /// In the name of a prepared statement, which ends in a NUL.
    pub(super) const NAME: u32 = 1;
    /// Between tokens.
    pub(super) const GAP: u32 = 2;
    /// After the first character of `--`.
    pub(super) const DASH: u32 = 3;
    /// After the first character of `/*`.
    pub(super) const SLASH: u32 = 4;
    /// In a comment to the end of the line.
    pub(super) const LINE: u32 = 5;
    /// In a comment to `*/`.
    pub(super) const BLOCK: u32 = 6;
    /// After a star in it.
    pub(super) const STAR: u32 = 7;
    /// Past the first character of something else.
    pub(super) const OVER: u32 = 8;
    /// At the word; its place is in the upper half.
    pub(super) const WORD: u32 = 9;
}

/// Glances at the statement with which a request begins, a simple query or one to be prepared, and
/// says in the connection whether and where [`notice`] has to look.
///
/// Two steps, for the verifier's sake: it follows each way that leads here, and to look is long.
#[inline(always)]
pub(crate) fn glance(connection: &mut Connection, head: &Head) {
    let is_parse = head.bytes[0] == b'P';
    if head.bytes[0] != b'Q' && !is_parse {
        return;
    }
    // Most statements have no name and no comment.
    let first = if is_parse { head.bytes[TEXT as usize + 1] } else { head.bytes[TEXT as usize] };
    let is_named = is_parse && head.bytes[TEXT as usize] != 0;
    if is_named || !first.is_ascii_alphabetic() {
        connection.search = if is_parse { at::NAME } else { at::GAP };
    } else if matches!(first | 0x20, b'l' | b'u' | b'd') {
        connection.search = at::WORD | u32::from(is_parse) << 16;
    }
}

/// Whether there is anything to look at.
#[inline(always)]
pub(crate) fn is_to_be_noticed(connection: &Connection) -> bool {
    connection.search != at::NOTHING
}

/// Looks at the first word of a request's statement.
#[inline(always)]
pub(crate) fn notice(connection: &mut Connection, payload: &Payload) {
    let Buffer { base, len } = payload.first();
    let place = search(connection, base, len);
    connection.search = at::NOTHING;
    let mut word = [0u8; WORD];
    payload::copy(base.wrapping_add(place), len.saturating_sub(place), &mut word);
    if begins(&word, b"LISTEN") && !word[6].is_ascii_alphanumeric() {
        connection.flags |= flag::LISTENS;
    } else if begins(&word, b"UNLISTEN *") || begins(&word, b"DISCARD ALL") {
        connection.flags &= !flag::LISTENS;
    }
}

/// Where the first word begins; where nothing is, when it is not within sight.
///
/// The state is in a map, for the verifier's sake: it would follow every state that it knows of.
#[inline(never)]
fn search(connection: &mut Connection, base: u64, len: u64) -> u64 {
    let state = &raw mut connection.search;
    // SAFETY: the pointer comes from a reference.
    let mut found = unsafe { state.read_volatile() };
    if found & 0xffff != at::WORD {
        let mut window = [0u8; WINDOW];
        payload::copy(base.wrapping_add(TEXT), len.saturating_sub(TEXT), &mut window);
        let mut index = 0;
        while index < WINDOW {
            // SAFETY: as above.
            unsafe { state.write_volatile(next(found, window[index], index as u32)) };
            // SAFETY: as above.
            found = unsafe { state.read_volatile() };
            index += 1;
        }
    }
    if found & 0xffff == at::WORD { TEXT + u64::from(found >> 16) } else { len }
}

#[inline(always)]
fn next(state: u32, byte: u8, index: u32) -> u32 {
    match state {
        at::NAME => at::NAME + u32::from(byte == 0),
        at::GAP => match byte {
            b' ' | b'\t' | b'\n' | b'\r' | b';' => at::GAP,
            b'-' => at::DASH,
            b'/' => at::SLASH,
            _ if byte.is_ascii_alphabetic() => at::WORD | index << 16,
            _ => at::OVER,
        },
        at::DASH if byte == b'-' => at::LINE,
        at::LINE if byte == b'\n' => at::GAP,
        at::LINE => at::LINE,
        at::SLASH if byte == b'*' => at::BLOCK,
        at::STAR if byte == b'/' => at::GAP,
        at::BLOCK | at::STAR => at::BLOCK + u32::from(byte == b'*'),
        found if found & 0xffff == at::WORD => found,
        _ => at::OVER,
    }
}

/// Whether a word begins with these characters, whatever their case.
#[inline(always)]
fn begins<const N: usize>(word: &[u8; WORD], with: &[u8; N]) -> bool {
    let mut differs = 0;
    let mut index = 0;
    while index < N {
        // 0x20 makes the difference between upper and lower case; blanks and stars have it.
        differs |= (word[index] ^ with[index]) & !0x20;
        index += 1;
    }
    differs == 0
}
