//! What can be wrong, how much it weighs, and which stack shows it. The names are those of reports
//! and metrics.

use schemars::JsonSchema;
use serde::Serialize;
use strum::{Display, IntoStaticStr, VariantArray};

/// What is wrong with a connection, or with a pool.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    JsonSchema,
    Display,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Reason {
    /// The pool's open connections rise without bound.
    Growing,
    /// Silent and idle while the same pool opened more.
    Abandoned,
    /// The server last said "in transaction", then silence.
    IdleInTransaction,
    /// Bytes from the server lie unread.
    UnreadResult,
    /// The server closed; the process never did.
    CloseWait,
    /// No connection, or no answer to the startup message.
    ConnectStuck,
    /// A process exited with it open.
    UnclosedAtExit,
    /// The server had no slot left.
    Refused,
    /// A request unanswered for long.
    AwaitingResponse,
    /// Silent, with no evidence of anything else.
    Silent,
}

impl Reason {
    /// Every reason, in the order of the documentation.
    pub const ALL: &[Self] = Self::VARIANTS;

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// How much a finding weighs, the lightest first.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema, IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Severity {
    /// Worth knowing; healthy programs do it.
    Info,
    /// Unusual; a healthy program could do it.
    Suspect,
    /// The evidence is one that a healthy pool cannot produce.
    Leak,
}

impl Severity {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// Which of a connection's stacks a finding shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StackOf {
    /// The one that called `connect()`.
    OpenedBy,
    /// The one that sent the last request.
    LastUsedBy,
}
