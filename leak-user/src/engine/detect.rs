//! Judging the table: one small detector a reason.
//!
//! A detector looks at a [`View`] of the table at one moment and says which connections it has
//! something against, and why. It keeps no state. What it needs of the past is in the table: the
//! groups' histories and when each connection was last used.
//!
//! Severity [`Severity::Leak`] needs evidence that a healthy pool cannot produce. The strongest is
//! that a healthy pool reuses: it does not open a connection while it has an idle one.

mod abandoned;
mod awaiting_response;
mod close_wait;
mod code;
mod connect_stuck;
mod evidence;
mod growing;
mod hoarded;
mod idle_in_transaction;
mod silent;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod testing;
mod unread_result;
mod view;

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use code::Stacks;
pub(crate) use evidence::{duration, plural, span};
pub use view::View;

use crate::engine::table::{ConnectionTable, Identity};
use crate::model::{ConnectionId, ProcessKey, StackId, Timestamp};

/// What is wrong with a connection. The names are those of the JSON report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The group's open connections rise without bound.
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
    /// A request unanswered for long.
    AwaitingResponse,
    /// Silent, with no evidence of anything else.
    Silent,
}

impl Reason {
    /// Every reason, in the order of the documentation.
    pub const ALL: [Self; 8] = [
        Self::Growing,
        Self::Abandoned,
        Self::IdleInTransaction,
        Self::UnreadResult,
        Self::CloseWait,
        Self::ConnectStuck,
        Self::AwaitingResponse,
        Self::Silent,
    ];

    /// Its name in reports and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Growing => "growing",
            Self::Abandoned => "abandoned",
            Self::IdleInTransaction => "idle_in_transaction",
            Self::UnreadResult => "unread_result",
            Self::CloseWait => "close_wait",
            Self::ConnectStuck => "connect_stuck",
            Self::AwaitingResponse => "awaiting_response",
            Self::Silent => "silent",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How much a finding weighs, the lightest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing; healthy programs do it.
    Info,
    /// Unusual; a healthy program could do it.
    Suspect,
    /// The evidence is one that a healthy pool cannot produce.
    Leak,
}

impl Severity {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Suspect => "suspect",
            Self::Leak => "leak",
        }
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

impl StackOf {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenedBy => "opened_by",
            Self::LastUsedBy => "last_used_by",
        }
    }
}

/// From when on things count.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Thresholds {
    /// How long without payload counts as silent.
    pub silent_after: Duration,
    /// How often connections are judged.
    pub interval: Duration,
    /// The pool's or server's cap, for forecasts.
    pub limit: Option<u64>,
}

/// What a detector has against some connections of one process to one server that one piece of
/// code used or opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What is wrong.
    pub reason: Reason,
    /// How much it weighs.
    pub severity: Severity,
    /// The process that opened them.
    pub process: ProcessKey,
    /// The server.
    pub remote: SocketAddr,
    /// The group, where the verdict is about a group and not about its connections one by one.
    pub pool: Option<Identity>,
    /// The connections, in order.
    pub connections: Vec<ConnectionId>,
    /// Why, in one sentence with its numbers.
    pub evidence: String,
    /// Which stack `stack` is.
    pub stack_of: StackOf,
    /// The stack that the connections have in common, or most of them, where they have the code that
    /// is to blame in common.
    pub stack: Option<StackId>,
    /// Names the code that is to blame: the same for every stack that leads to it.
    pub cause: Option<String>,
}

/// Connections that stand accused of being abandoned, and since when each was silent then.
///
/// What a pool did after it had lost a connection stays true when the pool shrinks again, so these
/// stay accused until they are used or closed.
pub type Standing = HashMap<ConnectionId, Timestamp>;

/// Finds one kind of trouble.
///
/// A new kind of trouble is a new variant of [`Reason`], a file with an implementation of this
/// trait, and a line in [`evaluate`] at the place that its precedence gives it.
pub trait Detector {
    /// What it finds.
    fn reason(&self) -> Reason;

    /// Judges the connections of `view` that no detector of higher precedence has taken.
    fn judge(&self, view: &View<'_>, now: Timestamp) -> Vec<Verdict>;
}

/// The detectors that judge connections one by one, the surest evidence first: a connection is
/// taken by the first that has something against it.
const DETECTORS: [&dyn Detector; 8] = [
    &close_wait::CloseWait,
    &idle_in_transaction::IdleInTransaction,
    &unread_result::UnreadResult,
    &hoarded::Hoarded,
    &abandoned::Abandoned,
    &connect_stuck::ConnectStuck,
    &awaiting_response::AwaitingResponse,
    &silent::Silent,
];

/// Judges the whole table at `now`.
#[must_use]
pub fn evaluate(
    table: &ConnectionTable,
    stacks: &Stacks,
    thresholds: &Thresholds,
    standing: &Standing,
    now: Timestamp,
) -> Vec<Verdict> {
    let mut view = View::new(table, stacks, thresholds, standing);
    // Growth is about groups: their connections are judged one by one besides.
    let mut verdicts = growing::Growing.judge(&view, now);
    for detector in DETECTORS {
        let found = detector.judge(&view, now);
        view.take(found.iter().flat_map(|verdict| &verdict.connections).copied());
        verdicts.extend(found);
    }
    verdicts
}
