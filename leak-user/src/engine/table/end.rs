//! How a connection has ended.

/// How a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It was closed, or found to be gone.
    Closed,
    /// It could not be established.
    Failed,
}
