//! What the client sends.

use leak_common::connection::{Connection, phase, state};

use super::messages;
use super::parser::{LOST, Parser};
use super::startup::{detect_tls, first_sent};
use super::statement;
use crate::kernel::payload::{Head, Payload};

/// The last five bytes of a stream that ends in `CopyDone` or `Sync`.
const COPY_DONE: u64 = 0x63_0000_0004;
const SYNC: u64 = 0x53_0000_0004;
const FIVE_BYTES: u64 = 0xff_ffff_ffff;
/// The messages that each bring a `ReadyForQuery`: simple query, function call, `Sync`.
const REQUESTS: u64 = messages::types(b"QFS");

/// Skips `len` bytes that were sent, if all of them belong to a message that began earlier: then
/// there is nothing in them to read. False if they have to be read.
#[inline(always)]
pub(crate) fn skip_sent(connection: &mut Connection, len: u64) -> bool {
    let parser = Parser::within(&mut connection.parser);
    // LOST is u64::MAX: adding 1 wraps it to 0, which is never more than the length.
    let is_within = parser.sending.wrapping_add(1) > len
        && connection.phase == phase::READY
        && connection.wire == state::BUSY;
    if is_within {
        parser.sending -= len;
    }
    is_within
}

/// Reads what the process has sent.
#[inline(always)]
pub(crate) fn sent(index: u32, connection: &mut Connection, payload: &Payload) {
    match connection.phase {
        phase::NEW => first_sent(index, connection, payload),
        phase::READY => request(connection, payload),
        phase::UNKNOWN if payload.is_visible() => detect_tls(connection, &payload.head()),
        _ => {}
    }
}

/// Anything that a client sends after the server was ready is a request, but for the data of a
/// COPY.
#[inline(always)]
fn request(connection: &mut Connection, payload: &Payload) {
    if !payload.is_visible() {
        connection.wire = state::BUSY;
        return;
    }
    if connection.wire == state::REPLICATION {
        return;
    }
    if connection.wire == state::COPY {
        // The data ends in CopyDone, and with the extended protocol in Sync after that. CopyFail
        // needs no care: the server answers it with an error and ReadyForQuery.
        let end = payload.tail(0) & FIVE_BYTES;
        if end == COPY_DONE || end == SYNC {
            connection.wire = state::BUSY;
        }
        return;
    }
    let head = payload.head();
    expect_answers(connection, payload, &head);
    connection.wire = state::BUSY;
    statement::glance(connection, &head);
}

/// Counts the requests that each bring a `ReadyForQuery`.
#[inline(always)]
fn expect_answers(connection: &mut Connection, payload: &Payload, head: &Head) {
    let (requests, wire) = (connection.requests, connection.wire);
    let parser = Parser::of(connection);
    let before = parser.expected;
    if before == 0 && wire != state::BUSY && wire != state::UNKNOWN {
        // The server waits for a request, so a message begins here.
        parser.sending = 0;
    }
    if parser.sending == 0 && head.len >= 5 && payload.len() == u64::from(head.word(1)) + 1 {
        // Exactly one message, the most frequent case, has been read already.
        parser.expected = before.wrapping_add(messages::is_any(REQUESTS, head.bytes[0]));
    } else if parser.sending != LOST {
        messages::walk(payload, &mut parser.sending, &mut parser.expected, REQUESTS);
    }
    if parser.sending == LOST && payload.tail(0) & FIVE_BYTES == SYNC {
        // A long batch: it ends in one Sync, and that is the end of a message.
        parser.expected = parser.expected.max(before.saturating_add(1));
        parser.sending = 0;
    }
    if before <= 1 && parser.expected > 1 {
        // From here on answers are counted, if the next one begins a message.
        let is_unanswered = before == 0 || parser.answered != requests;
        parser.receiving = if is_unanswered { 0 } else { LOST };
    }
}
