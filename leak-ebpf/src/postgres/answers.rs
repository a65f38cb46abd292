//! What the server answers.

use leak_common::connection::{Connection, flag, phase, state};

use super::messages;
use super::parser::{LOST, Parser};
use super::startup::{backend_pid, detect_tls, encryption_answer, keep_refusal};
use super::statement::listen_answered;
use crate::kernel::payload::{Head, Payload};

/// `ReadyForQuery` without its last byte.
const READY_FOR_QUERY: u64 = 0x5a_0000_0005;
/// The server's unsolicited messages, once it is ready, are seldom as long as this.
const LONGER_THAN_NOTICES: u32 = 1024;
/// The messages that end an answer: `ReadyForQuery`.
const ANSWERS: u64 = messages::types(b"Z");

/// Which part of an answer is received.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The first since the latest request began.
    First,
    /// A later one.
    Further,
}

/// Whether the server has begun to answer the latest request.
#[inline(always)]
pub(crate) fn is_answered(connection: &Connection) -> bool {
    Parser::read(connection).answered == connection.requests
}

/// Records that the server answers the latest request, and tells whether it had begun before.
#[inline(always)]
pub(crate) fn begin_answer(connection: &mut Connection) -> Answer {
    let answer = if is_answered(connection) { Answer::Further } else { Answer::First };
    Parser::within(&mut connection.parser).answered = connection.requests;
    answer
}

/// Skips a part of an answer that cannot be its end, because too many bytes are still `unread` in
/// the socket: only the end tells anything, and finding the bytes costs four times as much as
/// counting them. False if the part has to be read.
#[inline(always)]
pub(crate) fn skip_received(
    connection: &mut Connection,
    answer: Answer,
    unread: impl FnOnce() -> u32,
) -> bool {
    let phase = connection.phase;
    let parser = Parser::of(connection);
    let is_plain = phase == phase::READY
        && parser.receiving == LOST
        && parser.expected <= 1
        && answer == Answer::Further;
    if !is_plain || unread() < LONGER_THAN_NOTICES {
        return false;
    }
    // The bytes that are read next do not follow those that were read last.
    parser.tail = 0;
    true
}

/// Reads what the process has received.
#[inline(always)]
pub(crate) fn received(index: u32, connection: &mut Connection, payload: &Payload, answer: Answer) {
    match connection.phase {
        phase::ENCRYPTION_ASKED => encryption_answer(connection, payload),
        phase::STARTUP | phase::READY | phase::UNKNOWN => {
            read_answer(index, connection, payload, answer);
        }
        _ => {}
    }
}

#[inline(always)]
fn read_answer(index: u32, connection: &mut Connection, payload: &Payload, answer: Answer) {
    if !payload.is_visible() {
        connection.wire = state::UNKNOWN;
        follow_transaction(connection);
        Parser::of(connection).tail = 0;
        if connection.phase == phase::STARTUP {
            connection.phase = phase::UNKNOWN;
        }
        return;
    }
    if connection.phase == phase::STARTUP {
        keep_refusal(index, connection, payload);
    }
    if answer == Answer::First && connection.flags & flag::LISTEN_ASKED != 0 {
        listen_answered(connection, first_telling(&payload.head()));
    }
    let parser = Parser::of(connection);
    let tail = payload.tail(parser.tail);
    parser.tail = tail;
    let counted = count_answers(parser, payload);
    let expected = parser.expected;
    if tail >> 8 == READY_FOR_QUERY {
        let state = match tail as u8 {
            _ if counted == Counted::Uncertain => state::UNKNOWN,
            _ if expected > 0 => state::BUSY,
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
        follow_transaction(connection);
    } else if answer == Answer::First && connection.phase == phase::READY {
        detect_copy(connection, &payload.head());
    } else if connection.phase == phase::UNKNOWN {
        detect_tls(connection, &payload.head());
    }
}

/// Notes when a transaction begins and ends: by the state that the server has just told.
#[inline(always)]
fn follow_transaction(connection: &mut Connection) {
    match connection.wire {
        state::IN_TRANSACTION | state::FAILED_TRANSACTION => {
            if connection.transaction_ns == 0 {
                connection.transaction_ns = connection.last_receive_ns;
            }
        }
        state::BUSY => {}
        _ => {
            connection.transaction_ns = 0;
            connection.flags &= !flag::TRANSACTION_MOVED;
        }
    }
}

/// Whether the number of answers that are still expected is known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Counted {
    Certain,
    Uncertain,
}

/// Subtracts the `ReadyForQuery`s received from those expected. Where at most one is expected, it
/// is the one at the end; where there are several, they are counted if possible.
#[inline(always)]
fn count_answers(parser: &mut Parser, payload: &Payload) -> Counted {
    let is_ready = parser.tail >> 8 == READY_FOR_QUERY;
    if parser.receiving != LOST {
        let mut answers = 0;
        messages::walk(payload, &mut parser.receiving, &mut answers, ANSWERS);
        parser.expected = parser.expected.saturating_sub(answers);
        if parser.receiving == 0 && parser.expected <= 1 {
            // At the end of a message, and the next ReadyForQuery is the last: no need to count on.
            parser.receiving = LOST;
            return Counted::Certain;
        }
        if parser.receiving != LOST {
            return Counted::Certain;
        }
    }
    let counted = if parser.expected <= 1 { Counted::Certain } else { Counted::Uncertain };
    if is_ready {
        parser.expected = 0;
    }
    counted
}

/// The type of an answer's first message that tells anything: after the empty messages with which
/// the extended protocol begins its answer, `ParseComplete`, unless the statement was parsed
/// before, and `BindComplete`.
#[inline(always)]
fn first_telling(head: &Head) -> u8 {
    match head.bytes[0] {
        b'1' if head.word(1) == 4 && head.bytes[5] == b'2' => head.bytes[10],
        b'2' if head.word(1) == 4 => head.bytes[5],
        first => first,
    }
}

/// Detects `CopyInResponse`, `CopyOutResponse` and `CopyBothResponse`.
#[inline(always)]
fn detect_copy(connection: &mut Connection, head: &Head) {
    match first_telling(head) {
        b'G' | b'H' => connection.wire = state::COPY,
        b'W' => connection.wire = state::REPLICATION,
        _ => {}
    }
}
