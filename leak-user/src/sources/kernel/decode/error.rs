//! Why bytes from the kernel programs are refused.

/// Why bytes cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer bytes than this kind of event needs.
    #[error("an event of kind {kind:?} has {len} bytes, too few")]
    TooShort {
        /// The kind, if that could be read.
        kind: Option<u32>,
        /// How many bytes there are.
        len: usize,
    },
    /// No such kind of event.
    #[error("an event has the unknown kind {0}")]
    UnknownKind(u32),
    /// The socket is neither IPv4 nor IPv6.
    #[error("a connection has the unknown address family {0}")]
    UnknownFamily(u32),
    /// The TCP state is not one of the kernel's.
    #[error("a connection has the unknown TCP state {0}")]
    UnknownState(u32),
}
