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
    pub(super) const NOTHING: u8 = 0;
    /// In the name of a prepared statement, which ends in a NUL.
    pub(super) const NAME: u8 = 1;
    /// Between tokens.
    pub(super) const GAP: u8 = 2;
    /// After the first character of `--`.
    pub(super) const DASH: u8 = 3;
    /// After the first character of `/*`.
    pub(super) const SLASH: u8 = 4;
    /// In a comment to the end of the line.
    pub(super) const LINE: u8 = 5;
    /// In a comment to `*/`.
    pub(super) const BLOCK: u8 = 6;
    /// After a star in it.
    pub(super) const STAR: u8 = 7;
    /// Past the first character of something else.
    pub(super) const OVER: u8 = 8;
    /// At the word; in a connection its place is in the upper half.
    pub(super) const WORD: u8 = 9;
    /// More than there are, so that a mask keeps one within them.
    pub(super) const COUNT: usize = 16;
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
        connection.search = u32::from(if is_parse { at::NAME } else { at::GAP });
    } else if matches!(first | 0x20, b'l' | b'u' | b'd') {
        connection.search = u32::from(at::WORD) | u32::from(is_parse) << 16;
    }
}

/// Whether there is anything to look at.
#[inline(always)]
pub(crate) fn is_to_be_noticed(connection: &Connection) -> bool {
    connection.search != u32::from(at::NOTHING)
}

/// Looks at the first word of a request's statement.
#[inline(always)]
pub(crate) fn notice(connection: &mut Connection, payload: &Payload) {
    let Buffer { base, len } = payload.first();
    let place = search_statement(connection.search, base, len);
    connection.search = u32::from(at::NOTHING);
    let mut word = [0u8; WORD];
    payload::copy(base.wrapping_add(place), len.saturating_sub(place), &mut word);
    if begins(&word, b"LISTEN") && !word[6].is_ascii_alphanumeric() {
        connection.flags |= flag::LISTENS;
    } else if begins(&word, b"UNLISTEN *") || begins(&word, b"DISCARD ALL") {
        connection.flags &= !flag::LISTENS;
    }
}

/// Where the first word begins, from where [`glance`] has left the search; where nothing is, when the word is not
/// within sight.
///
/// A global function, for the reason of [`crate::python::walk_python`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search_statement(found: u32, base: u64, len: u64) -> u64 {
    let mut state = found as u8;
    if state == at::WORD {
        return TEXT + u64::from(found >> 16);
    }
    let mut window = [0u8; WINDOW];
    payload::copy(base.wrapping_add(TEXT), len.saturating_sub(TEXT), &mut window);
    let mut place = TEXT;
    let mut index = 0;
    while index < WINDOW {
        state = NEXT[usize::from(state) % at::COUNT][usize::from(window[index])];
        // Counts what is neither over nor the word.
        place += 1 - u64::from(state / at::OVER % 2);
        index += 1;
    }
    if state == at::WORD { place } else { len }
}

/// Where a search stands next, by where it stands and the byte that comes. A table, for the verifier's sake: it
/// would follow each branch at each byte.
static NEXT: [[u8; 256]; at::COUNT] = {
    let mut table = [[0; 256]; at::COUNT];
    let mut state = 0;
    while state < table.len() {
        let mut byte = 0;
        while byte < table[state].len() {
            table[state][byte] = next(state as u8, byte as u8);
            byte += 1;
        }
        state += 1;
    }
    table
};

const fn next(state: u8, byte: u8) -> u8 {
    match (state, byte) {
        (at::NAME, 0) => at::GAP,
        (at::NAME, _) => at::NAME,
        (at::GAP, b' ' | b'\t' | b'\n' | b'\r' | b';') => at::GAP,
        (at::GAP, b'-') => at::DASH,
        (at::GAP, b'/') => at::SLASH,
        (at::GAP, b'A'..=b'Z' | b'a'..=b'z') => at::WORD,
        (at::DASH, b'-') => at::LINE,
        (at::LINE, b'\n') => at::GAP,
        (at::LINE, _) => at::LINE,
        (at::SLASH, b'*') => at::BLOCK,
        (at::STAR, b'/') => at::GAP,
        (at::BLOCK | at::STAR, b'*') => at::STAR,
        (at::BLOCK | at::STAR, _) => at::BLOCK,
        (at::WORD, _) => at::WORD,
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
