//! PostgreSQL's dialogue: its state, from the first and last bytes of what is sent and received.
//!
//! Source: PostgreSQL's documentation, "Frontend/Backend Protocol", "Message Formats". Nothing is
//! guessed: after bytes that cannot be read the state is unknown until the server next says that it
//! is ready.

mod answers;
mod messages;
mod parser;
mod requests;
mod startup;
mod statement;

use leak_common::connection::{Connection, phase};

pub(crate) use self::answers::{begin_answer, is_answered, received, skip_received};
use self::parser::{LOST, Parser};
pub(crate) use self::requests::{sent, skip_sent};
pub(crate) use self::startup::first_bytes;
pub(crate) use self::statement::{has_statement, read_statement};

/// Starts the dialogue of a new connection in one of [`phase`].
#[inline(always)]
pub(crate) fn begin(connection: &mut Connection, phase: u32) {
    connection.phase = phase;
    Parser::of(connection).receiving = LOST;
}

/// Whether the bytes can say anything. Finding them costs more than counting them, and much of the
/// traffic is encrypted.
#[inline(always)]
pub(crate) fn is_readable(connection: &Connection) -> bool {
    !matches!(connection.phase, phase::ENCRYPTED | phase::FOREIGN)
}
