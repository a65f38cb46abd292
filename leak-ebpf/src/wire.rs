//! PostgreSQL's state from the first and last bytes of what is sent and received.
//!
//! Source: PostgreSQL's documentation, "Frontend/Backend Protocol", "Message Formats". Nothing is
//! guessed: what cannot be read leaves the state unknown until the server next says that it is
//! ready.

use leak_common::connection::{Connection, LOST, MAX_REFUSAL, flag, phase, state};

use crate::connection::first_bytes;
use crate::payload::{self, Head, Payload};
use crate::{messages, statement};

/// Codes that a startup packet carries instead of a protocol version.
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;
/// The only major version spoken since 2003, in the upper half of the version number.
const PROTOCOL_MAJOR: u32 = 3;
/// PostgreSQL refuses longer startup packets.
const LONGEST_STARTUP: u32 = 10_000;
/// Content types of TLS records: handshake and application data. Then comes the version, 3.x.
const TLS_HANDSHAKE: u8 = 0x16;
const TLS_DATA: u8 = 0x17;
const TLS_MAJOR: u8 = 3;
/// The last five bytes of a stream that ends in `CopyDone` or `Sync`.
const COPY_DONE: u64 = 0x63_0000_0004;
const SYNC: u64 = 0x53_0000_0004;
const FIVE_BYTES: u64 = 0xff_ffff_ffff;
/// `ReadyForQuery` without its last byte.
const READY_FOR_QUERY: u64 = 0x5a_0000_0005;
/// What the server sends unasked, after it was ready, is seldom as long as this.
const MORE_THAN_NOTICES: u32 = 1024;
/// `BackendKeyData` with a key of four bytes: type, length, PID, key.
const KEY_DATA_LEN: u32 = 12;
const READY_LEN: u64 = 6;
/// A message's type and length.
const HEADER_LEN: u32 = 5;
/// Most messages that come before a refusal in one piece: the authentication's last two.
const MAX_BEFORE_REFUSAL: u32 = 4;
/// What brings a `ReadyForQuery`: simple query, function call, `Sync`.
const REQUESTS: u64 = messages::types(b"QFS");
const ANSWERS: u64 = messages::types(b"Z");

/// Whether bytes can say anything. To find them costs more than to count them, and much is encrypted.
#[inline(always)]
pub(crate) fn is_legible(connection: &Connection) -> bool {
    !matches!(connection.phase, phase::ENCRYPTED | phase::FOREIGN)
}

/// Takes note that `len` bytes were sent, if all of them belong to a message that began earlier: there is nothing
/// in them to look at.
#[inline(always)]
pub(crate) fn goes_on(connection: &mut Connection, len: u64) -> bool {
    // Once lost, one more is none.
    let is_within = connection.sending.wrapping_add(1) > len
        && connection.phase == phase::READY
        && connection.wire == state::BUSY;
    if is_within {
        connection.sending -= len;
    }
    is_within
}

/// The process has sent something.
#[inline(always)]
pub(crate) fn sent(index: u32, connection: &mut Connection, payload: &Payload) {
    match connection.phase {
        phase::NEW => begun(index, connection, payload),
        phase::READY => request(connection, payload),
        phase::UNKNOWN if payload.is_visible() => notice_tls(connection, &payload.head()),
        _ => {}
    }
}

/// The first bytes of a connection say what is spoken on it.
#[inline(always)]
fn begun(index: u32, connection: &mut Connection, payload: &Payload) {
    if !payload.is_visible() {
        connection.phase = phase::UNKNOWN;
        return;
    }
    let head = payload.head();
    let (length, code) = (head.word(0), head.word(4));
    connection.phase = if head.len < 8 {
        // Too short for a packet; a client may send the length apart.
        if head.len == 5 || head.bytes[0] == 0 { phase::UNKNOWN } else { phase::FOREIGN }
    } else if head.bytes[0] == TLS_HANDSHAKE && head.bytes[1] == TLS_MAJOR {
        phase::ENCRYPTED
    } else if length == 8 && (code == SSL_REQUEST || code == GSS_REQUEST) {
        phase::ENCRYPTION_ASKED
    } else if length == 16 && code == CANCEL_REQUEST {
        connection.flags |= flag::CANCELS;
        phase::STARTUP
    } else if code >> 16 == PROTOCOL_MAJOR && (9..=LONGEST_STARTUP).contains(&length) {
        if let Some(first) = first_bytes(index) {
            connection.startup_len = payload.copy_to(&mut first.startup);
        }
        phase::STARTUP
    } else {
        phase::FOREIGN
    };
}

/// Anything that a client sends after the server was ready is a request, but for the data of a COPY.
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
        // needs no notice: the server answers it with an error and ReadyForQuery.
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

/// Counts the requests that each bring a `ReadyForQuery`: simple queries, function calls and `Sync`.
#[inline(always)]
fn expect_answers(connection: &mut Connection, payload: &Payload, head: &Head) {
    let before = connection.expected;
    if before == 0 && connection.wire != state::BUSY && connection.wire != state::UNKNOWN {
        // The server waits for a request, so one begins.
        connection.sending = 0;
    }
    if connection.sending == 0 && head.len >= 5 && payload.len() == u64::from(head.word(1)) + 1 {
        // One message and no more, the commonest case, is not looked at twice.
        connection.expected = before.wrapping_add(messages::is_any(REQUESTS, head.bytes[0]));
    } else if connection.sending != LOST {
        let (left, count) = (&mut connection.sending, &mut connection.expected);
        messages::walk(payload, left, count, REQUESTS);
    }
    if connection.sending == LOST && payload.tail(0) & FIVE_BYTES == SYNC {
        // A long batch: it ends in one Sync, and so does a message.
        connection.expected = connection.expected.max(before.saturating_add(1));
        connection.sending = 0;
    }
    if before <= 1 && connection.expected > 1 {
        // From here on answers are told apart, if the next one begins a message.
        let unanswered = before == 0 || connection.answered != connection.requests;
        connection.receiving = if unanswered { 0 } else { LOST };
    }
}

/// Takes note that something was received within an answer, of which `unread` bytes lie in the socket already,
/// if that is all that there is to note: how an answer ends its last bytes tell, and to look for bytes costs
/// four times as much as to count them.
#[inline(always)]
pub(crate) fn passes_over(connection: &mut Connection, unread: impl FnOnce() -> u32) -> bool {
    let is_plain = connection.phase == phase::READY
        && connection.receiving == LOST
        && connection.expected <= 1
        && connection.answered == connection.requests;
    if !is_plain || unread() < MORE_THAN_NOTICES {
        return false;
    }
    // What is read next begins the stream's last bytes anew.
    connection.tail = 0;
    true
}

/// The process has received something.
#[inline(always)]
pub(crate) fn received(
    index: u32,
    connection: &mut Connection,
    payload: &Payload,
    is_first_answer: bool,
) {
    match connection.phase {
        phase::ENCRYPTION_ASKED => encryption_answer(connection, payload),
        phase::STARTUP | phase::READY | phase::UNKNOWN => {
            answer(index, connection, payload, is_first_answer);
        }
        _ => {}
    }
}

/// The server answers a request for encryption with one byte: yes (`S`, `G`) or no (`N`).
#[inline(always)]
fn encryption_answer(connection: &mut Connection, payload: &Payload) {
    connection.phase = if payload.is_visible() {
        match payload.head().bytes[0] {
            b'S' | b'G' => phase::ENCRYPTED,
            _ => phase::NEW,
        }
    } else {
        phase::UNKNOWN
    };
}

#[inline(always)]
fn answer(index: u32, connection: &mut Connection, payload: &Payload, is_first_answer: bool) {
    if !payload.is_visible() {
        connection.wire = state::UNKNOWN;
        connection.tail = 0;
        if connection.phase == phase::STARTUP {
            connection.phase = phase::UNKNOWN;
        }
        return;
    }
    if connection.phase == phase::STARTUP {
        notice_refusal(index, connection, payload);
    }
    let tail = payload.tail(connection.tail);
    connection.tail = tail;
    let certain = count_answers(connection, payload);
    if tail >> 8 == READY_FOR_QUERY {
        let state = match tail as u8 {
            _ if !certain => state::UNKNOWN,
            _ if connection.expected > 0 => state::BUSY,
            b'I' => state::IDLE,
            b'T' => state::IN_TRANSACTION,
            b'E' => state::FAILED_TRANSACTION,
            _ => return,
        };
        if connection.phase == phase::STARTUP {
            connection.backend_pid = backend_pid(payload);
        }
        connection.wire = state;
        connection.phase = phase::READY;
    } else if is_first_answer && connection.phase == phase::READY {
        notice_copy(connection, &payload.head());
    } else if connection.phase == phase::UNKNOWN {
        notice_tls(connection, &payload.head());
    }
}

/// Keeps the beginning of the error with which the server refuses a connection: it comes first, or
/// after the messages that end the authentication.
#[inline(always)]
fn notice_refusal(index: u32, connection: &mut Connection, payload: &Payload) {
    let Some(first) = first_bytes(index) else { return };
    if connection.refusal_len == HEADER_LEN {
        // The header was read apart.
        const REST: usize = MAX_REFUSAL - HEADER_LEN as usize;
        if let Some(rest) = first.refusal.last_chunk_mut::<REST>() {
            connection.refusal_len += payload.copy_to(rest);
        }
        return;
    }
    let Some(buffer) = payload.only_buffer() else { return };
    let mut offset = 0;
    let mut looked_at = 0;
    while looked_at < MAX_BEFORE_REFUSAL {
        if offset >= buffer.len {
            return;
        }
        let address = buffer.base.wrapping_add(offset);
        let Some((kind, length)) = payload.message_at(address) else { return };
        if kind == b'E' {
            connection.refusal_len =
                payload::copy(address, buffer.len - offset, &mut first.refusal);
            return;
        }
        offset += 1 + u64::from(length);
        looked_at += 1;
    }
}

/// Takes the `ReadyForQuery`s that were received off those expected. Where one is expected at most,
/// the one at the end is it; where several are, they are counted. False when they could not be.
#[inline(always)]
fn count_answers(connection: &mut Connection, payload: &Payload) -> bool {
    let is_ready = connection.tail >> 8 == READY_FOR_QUERY;
    if connection.receiving != LOST {
        let mut answers = 0;
        messages::walk(payload, &mut connection.receiving, &mut answers, ANSWERS);
        connection.expected = connection.expected.saturating_sub(answers);
        if connection.receiving == 0 && connection.expected <= 1 {
            // At a message's end, and the next ReadyForQuery is the last: no need to count on.
            connection.receiving = LOST;
            return true;
        }
        if connection.receiving != LOST {
            return true;
        }
    }
    let certain = connection.expected <= 1;
    if is_ready {
        connection.expected = 0;
    }
    certain
}

/// `BackendKeyData` comes right before the first `ReadyForQuery`. 0 when it is not there.
#[inline(always)]
fn backend_pid(payload: &Payload) -> u32 {
    // Type and length, PID, key: read as thirteen bytes that end where ReadyForQuery begins.
    let Some(message) = payload.before_end::<[u8; 13]>(READY_LEN) else { return 0 };
    let length = u32::from_be_bytes([message[1], message[2], message[3], message[4]]);
    if message[0] != b'K' || length != KEY_DATA_LEN {
        return 0;
    }
    u32::from_be_bytes([message[5], message[6], message[7], message[8]])
}

/// `CopyInResponse`, `CopyOutResponse` and `CopyBothResponse`, alone or after the empty messages with
/// which the extended protocol begins its answer: one that it has parsed the statement, unless that
/// was done before, and one that it has bound it.
#[inline(always)]
fn notice_copy(connection: &mut Connection, head: &Head) {
    let kind = match head.bytes[0] {
        b'1' if head.word(1) == 4 && head.bytes[5] == b'2' => head.bytes[10],
        b'2' if head.word(1) == 4 => head.bytes[5],
        first => first,
    };
    match kind {
        b'G' | b'H' => connection.wire = state::COPY,
        b'W' => connection.wire = state::REPLICATION,
        _ => {}
    }
}

/// A connection that was opened before tracing began shows by its records that it is encrypted.
#[inline(always)]
fn notice_tls(connection: &mut Connection, head: &Head) {
    if head.len >= 5 && head.bytes[0] == TLS_DATA && head.bytes[1] == TLS_MAJOR {
        connection.phase = phase::ENCRYPTED;
    }
}
