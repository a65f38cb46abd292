//! Detects `LISTEN` and `UNLISTEN`, so that idle listeners are not reported.
//!
//! A connection that listens for notifications is silent by design; `UNLISTEN *` and `DISCARD ALL`,
//! with which pools clean up, end that.
//!
//! The statement's first word is searched by a table of states and bytes, not by comparisons: the
//! verifier would follow both branches of each comparison at each byte.

use leak_common::connection::{Connection, flag};

use super::parser::Parser;
use crate::kernel::payload::{self, Buffer, Head, Payload};

/// Where the text of a simple query begins, and in `Parse` the name that comes before the text.
const TEXT: u64 = 5;
/// Most bytes that are searched for the first word, names, blanks and comments among them.
const WINDOW: usize = 64;
/// Bytes that are read of the word and what follows it.
const WORD: usize = 16;

/// The states of a search.
mod at {
    /// There is no search.
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
    /// Something other than a word has begun.
    pub(super) const OVER: u8 = 8;
    /// At the word. The upper half of [`super::Parser::search`] has its position.
    pub(super) const WORD: u8 = 9;
    /// More than there are states, so that a mask keeps an index within them.
    pub(super) const COUNT: usize = 16;
}

/// Looks at the beginning of a request's statement, a simple query or one to be prepared, and
/// decides whether and from where [`read_statement`] has to read it.
///
/// Two steps, because the verifier follows each path that leads here, and reading is long.
#[inline(always)]
pub(super) fn glance(connection: &mut Connection, head: &Head) {
    let is_parse = head.bytes[0] == b'P';
    if head.bytes[0] != b'Q' && !is_parse {
        return;
    }
    // Most statements have no name and no comment.
    let first = if is_parse { head.bytes[TEXT as usize + 1] } else { head.bytes[TEXT as usize] };
    let is_named = is_parse && head.bytes[TEXT as usize] != 0;
    if is_named || !first.is_ascii_alphabetic() {
        Parser::of(connection).search = u32::from(if is_parse { at::NAME } else { at::GAP });
    } else if matches!(first | 0x20, b'l' | b'u' | b'd') {
        Parser::of(connection).search = u32::from(at::WORD) | u32::from(is_parse) << 16;
    }
}

/// Whether the beginning of a statement has to be read.
#[inline(always)]
pub(crate) fn has_statement(connection: &Connection) -> bool {
    Parser::read(connection).search != u32::from(at::NOTHING)
}

/// Reads the first word of a request's statement.
#[inline(always)]
pub(crate) fn read_statement(connection: &mut Connection, payload: &Payload) {
    let Buffer { base, len } = payload.first();
    let parser = Parser::of(connection);
    let place = search_statement(parser.search, base, len);
    parser.search = u32::from(at::NOTHING);
    let mut word = [0u8; WORD];
    payload::copy(base.wrapping_add(place), len.saturating_sub(place), &mut word);
    if begins(&word, b"LISTEN") && !word[6].is_ascii_alphanumeric() {
        connection.flags |= flag::LISTENS | flag::LISTEN_ASKED;
    } else if begins(&word, b"UNLISTEN *") || begins(&word, b"DISCARD ALL") {
        connection.flags &= !flag::LISTENS;
    }
}

/// Takes in how the server answers `LISTEN`: `kind` is the type of the first message that tells.
/// Without such a message it is taken to listen, for a listener must not be accused of its silence.
#[inline(always)]
pub(crate) fn listen_answered(connection: &mut Connection, kind: u8) {
    match kind {
        b'E' => connection.flags &= !(flag::LISTENS | flag::LISTEN_ASKED),
        b'C' => connection.flags &= !flag::LISTEN_ASKED,
        _ => {}
    }
}

/// Where the first word begins, given the state in which [`glance`] has left the search; `len`,
/// where nothing is, when the word is not within the window. A global function.
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
        // Counts the bytes before the word.
        place += 1 - u64::from(state / at::OVER % 2);
        index += 1;
    }
    if state == at::WORD { place } else { len }
}

/// The next state of a search, by its state and the next byte.
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
