//! Corrections and losses.

/// Where the table had to be corrected, and what it could not take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Connections found to exist whose opening was missed.
    pub added: u64,
    /// Connections found to be gone whose end was missed.
    pub closed: u64,
    /// Connections whose state was found to be another.
    pub corrected: u64,
    /// Openings refused because the table was full.
    pub refused: u64,
    /// Connections that the last inventory listed and the full table could not take.
    pub untracked: u64,
    /// Connections to servers beyond the limit of pools: they are not judged by growth.
    pub folded: u64,
}

impl Losses {
    /// All corrections.
    #[must_use]
    pub fn reconciled(&self) -> u64 {
        self.added + self.closed + self.corrected
    }
}
