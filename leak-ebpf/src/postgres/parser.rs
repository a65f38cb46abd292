//! What the parser remembers of a connection between calls.

use bytemuck::{Pod, Zeroable, must_cast_mut, must_cast_ref};
use leak_common::connection::{Connection, ParserState};

/// The end of the message under way is not known.
pub(super) const LOST: u64 = u64::MAX;

/// The inside of [`ParserState`].
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct Parser {
    /// Bytes of the client's last message that are still to be sent, or [`LOST`].
    pub(super) sending: u64,
    /// Bytes of the server's last message that are still to be received, or [`LOST`]; counted only
    /// while more than one `ReadyForQuery` is expected.
    pub(super) receiving: u64,
    /// The last six bytes received: the newest in the lowest byte, the oldest in the sixth.
    pub(super) tail: u64,
    /// Number of the latest request that the server has begun to answer.
    pub(super) answered: u64,
    /// How many `ReadyForQuery` the requests sent so far will still bring.
    pub(super) expected: u32,
    /// Where the search for a statement's first word stands.
    pub(super) search: u32,
}

impl Parser {
    /// The parser's state of a connection.
    #[inline(always)]
    pub(super) fn of(connection: &mut Connection) -> &mut Self {
        Self::within(&mut connection.parser)
    }

    /// The same, for those that use other fields of the connection meanwhile.
    #[inline(always)]
    pub(super) fn within(state: &mut ParserState) -> &mut Self {
        must_cast_mut(state)
    }

    /// The same, for reading.
    #[inline(always)]
    pub(super) fn read(connection: &Connection) -> &Self {
        must_cast_ref(&connection.parser)
    }
}
