//! How a dialogue begins: encryption, the startup message, and how the server answers it.

use leak_common::connection::{Connection, FirstBytes, MAX_REFUSAL, flag, phase};

use crate::kernel::payload::{self, Head, Payload};
use crate::maps::FIRST_BYTES;

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
/// `BackendKeyData` with a key of four bytes: type, length, PID, key.
const KEY_DATA_LEN: u32 = 12;
/// The length of `ReadyForQuery`.
const READY_LEN: u64 = 6;
/// A message's type and length.
const HEADER_LEN: u32 = 5;
/// Most messages that come before a refusal in one piece: the last two of the authentication.
const MAX_BEFORE_REFUSAL: u32 = 4;

/// The first bytes of the connection with this slot.
#[inline(always)]
pub(crate) fn first_bytes(index: u32) -> Option<&'static mut FirstBytes> {
    let bytes = FIRST_BYTES.get_ptr_mut(index)?;
    // SAFETY: the value lives as long as the map, and only the first to send or receive writes it.
    Some(unsafe { &mut *bytes })
}

/// Reads the first bytes that the client sends: they tell which protocol it speaks.
#[inline(always)]
pub(super) fn first_sent(index: u32, connection: &mut Connection, payload: &Payload) {
    if !payload.is_visible() {
        connection.phase = phase::UNKNOWN;
        return;
    }
    let head = payload.head();
    let (length, code) = (head.word(0), head.word(4));
    connection.phase = if head.len < 8 {
        // Too short for a packet; a client may send the length separately.
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

/// Reads the server's answer to a request for encryption, one byte: yes (`S`, `G`) or no (`N`).
#[inline(always)]
pub(super) fn encryption_answer(connection: &mut Connection, payload: &Payload) {
    connection.phase = if payload.is_visible() {
        match payload.head().bytes[0] {
            b'S' | b'G' => {
                connection.flags |= flag::ENCRYPTION_AGREED;
                phase::ENCRYPTED
            }
            _ => phase::NEW,
        }
    } else {
        phase::UNKNOWN
    };
}

/// Detects encryption on a connection that was opened before tracing began, by its TLS records.
#[inline(always)]
pub(super) fn detect_tls(connection: &mut Connection, head: &Head) {
    if head.len >= 5 && head.bytes[0] == TLS_DATA && head.bytes[1] == TLS_MAJOR {
        connection.phase = phase::ENCRYPTED;
    }
}

/// Keeps the beginning of the error with which the server refuses a connection: it comes first, or
/// after the messages that end the authentication.
#[inline(always)]
pub(super) fn keep_refusal(index: u32, connection: &mut Connection, payload: &Payload) {
    let Some(first) = first_bytes(index) else { return };
    if connection.refusal_len == HEADER_LEN {
        // The header was read in a call before.
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

/// The server's process from `BackendKeyData`, which comes right before the first `ReadyForQuery`.
/// 0 when it is not there.
#[inline(always)]
pub(super) fn backend_pid(payload: &Payload) -> u32 {
    // Type and length, PID, key: read as thirteen bytes that end where ReadyForQuery begins.
    let Some(message) = payload.before_end::<[u8; 13]>(READY_LEN) else { return 0 };
    let length = u32::from_be_bytes([message[1], message[2], message[3], message[4]]);
    if message[0] != b'K' || length != KEY_DATA_LEN {
        return 0;
    }
    u32::from_be_bytes([message[5], message[6], message[7], message[8]])
}
