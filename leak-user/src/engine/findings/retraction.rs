//! Why connections are no longer accused, in words.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::engine::detect::{Reason, RetractionWords, Scope, Span, Verdict};
use crate::engine::table::ConnectionTable;
use crate::model::{ConnectionId, Timestamp};

/// Why one connection is no longer accused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum RetractionCause {
    /// It has carried payload since.
    Moved,
    /// The server has ended it. Its last words are payload, but no use.
    Ended,
    Closed,
    /// It is accused of something else.
    Judged(Reason),
    Unknown,
}

/// Finds out why connections are no longer accused.
pub(super) struct Retractions<'a> {
    pub(super) table: &'a ConnectionTable,
    /// What each connection is accused of now.
    pub(super) judged: &'a HashMap<ConnectionId, Reason>,
    pub(super) now: Timestamp,
}

impl Retractions<'_> {
    /// Says why the connections in `left`, each silent since a moment, are no longer part of
    /// `verdict`: "used again after 93 s", with counts when there are several causes. `None` when
    /// none have left.
    pub(super) fn sentence(
        &self,
        verdict: &Verdict,
        left: &[(ConnectionId, Timestamp)],
    ) -> Option<String> {
        if left.is_empty() {
            return None;
        }
        let words = verdict.retraction();
        if verdict.scope() != Scope::Connections {
            return Some(words.over.to_owned());
        }
        let mut causes: BTreeMap<RetractionCause, Vec<Duration>> = BTreeMap::new();
        for &(id, since) in left {
            let (cause, after) = self.cause(id, since);
            causes.entry(cause).or_default().push(after);
        }
        let single = causes.len() == 1;
        let phrases = causes.into_iter().map(|(cause, after)| {
            let count = after.len();
            let phrase = phrase(words, cause, after.into_iter().collect());
            if single { phrase } else { format!("{count} {phrase}") }
        });
        Some(phrases.collect::<Vec<_>>().join(", "))
    }

    fn cause(&self, id: ConnectionId, since: Timestamp) -> (RetractionCause, Duration) {
        let Some(connection) = self.table.get(id) else {
            return (RetractionCause::Closed, self.now.since(since));
        };
        if connection.tcp.state.ended_by_server() {
            return (RetractionCause::Ended, connection.tcp.state_changed_at.since(since));
        }
        let silent_since = connection.silent_since();
        if silent_since > since {
            return (RetractionCause::Moved, silent_since.since(since));
        }
        if connection.tcp.state.closed_by_process() {
            return (RetractionCause::Closed, self.now.since(since));
        }
        let judged = self.judged.get(&id);
        let cause =
            judged.map_or(RetractionCause::Unknown, |&reason| RetractionCause::Judged(reason));
        (cause, Duration::ZERO)
    }
}

fn phrase(words: RetractionWords, cause: RetractionCause, after: Span) -> String {
    match cause {
        RetractionCause::Moved => format!("{} after {after}", words.moved),
        RetractionCause::Ended => format!("ended by the server after {after}"),
        RetractionCause::Closed => format!("closed after {after}"),
        RetractionCause::Judged(reason) => format!("now judged {reason}"),
        RetractionCause::Unknown => words.over.to_owned(),
    }
}
