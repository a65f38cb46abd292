//! What a run was told, kept in a file: `--record` and `replay`.
//!
//! A recording is cut at the door of the [`crate::engine`]: it holds every [`Fact`] with its
//! moment, decoded events, stacks already resolved, processes already described. So it can be
//! replayed on any machine, without privileges, kernel programs, or the binaries that were traced.
//!
//! # The file
//!
//! A recording is a row of gzip members, each whole and with its own checksum, each holding lines
//! of JSON: `zcat FILE` reads it. The first line is the header: the schema and the
//! [`Beginning`](crate::engine::Beginning). Every other line is an entry: when it became known, and
//! what. A member is written at least every second and in one go, so that of a tracer that was
//! killed, or whose disk was full, at most the last second is missing.
//!
//! No payload is in it; of the startup message it has only the names that reports show, and of what
//! the servers say of their sessions, statements only without their literals. Its mode is 0600 all
//! the same: stacks and names tell a lot about a program.
//!
//! # Versions
//!
//! Fields may be added at any time: they are named, unknown ones are skipped, and what may be
//! missing in older recordings has `#[serde(default)]`. A new kind of entry, or another meaning of
//! an old one, takes a new [`VERSION`]; a reader reads all versions up to its own and refuses later
//! ones.

mod disk;
mod reader;
mod sink;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod writer;

use std::io;

use serde::{Deserialize, Serialize};

pub use reader::Recording;
pub use sink::RecordingSink;
pub use writer::Recorder;

use crate::model::{ConnectionId, Fact, ListedSocket, Timestamp};

/// What the schema is called, without its version.
const SCHEMA: &str = "pgsocktrace.recording/";
/// The version that is written, and the latest that is read.
pub const VERSION: u32 = 2;

/// Most bytes of text in one member.
const MAX_TEXT: usize = 64 << 20;
/// Sockets that an inventory lists are told this many at a time.
const SOCKETS_AT_ONCE: usize = 256;

/// Why a file is no recording that can be replayed.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The system does not let it be read.
    #[error("it cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    /// It is something else.
    #[error("it was not written by pgsocktrace --record")]
    Foreign,
    /// It ends within or right after its header.
    #[error("it ends before anything was recorded")]
    Empty,
    /// A later version has made it.
    #[error(
        "it was made by pgsocktrace {version} in a format that this version does not know; replay it \
         with that one"
    )]
    Newer {
        /// The version that made it.
        version: String,
    },
    /// It ends within a member: whatever was whole has been read.
    #[error("it breaks off after {0} bytes")]
    CutOff(u64),
    /// It holds what is never written.
    #[error("it is damaged after byte {at}: {why}")]
    Damaged {
        /// Where the last whole member ends.
        at: u64,
        /// What is wrong.
        why: String,
    },
}

/// The first line.
#[derive(Serialize, Deserialize)]
struct Header<B> {
    schema: String,
    #[serde(flatten)]
    beginning: B,
}

/// Any other line.
#[derive(Serialize, Deserialize)]
struct Line<E> {
    at: Timestamp,
    entry: E,
}

/// What a line says. Written by reference and read by value.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Entry<F, C, S> {
    /// A fact as it is.
    Fact(F),
    /// The counters of these connections were read and say what they said before.
    Unchanged(C),
    /// Some of the sockets that the next inventory lists; it comes with none of its own.
    Sockets(S),
}

type Written<'a> = Entry<&'a Fact, &'a [ConnectionId], &'a [ListedSocket]>;
type Read = Entry<Fact, Vec<ConnectionId>, Vec<ListedSocket>>;
