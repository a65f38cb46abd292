//! What became of connections that are no longer accused.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::engine::detect::{Reason, span};
use crate::engine::table::ConnectionTable;
use crate::model::{ConnectionId, Timestamp};

/// Why one connection is no longer accused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    UsedAgain,
    Closed,
    Judged(Reason),
    NoLonger,
}

/// Looks fates up.
pub(super) struct Fates<'a> {
    pub(super) table: &'a ConnectionTable,
    /// What each connection is accused of now.
    pub(super) judged: &'a HashMap<ConnectionId, Reason>,
    pub(super) now: Timestamp,
}

impl Fates<'_> {
    /// "used again after 93 s", or with counts when there are several fates; `None` when nobody
    /// left.
    pub(super) fn sentence(
        &mut self,
        reason: Reason,
        left: &[(ConnectionId, Timestamp)],
    ) -> Option<String> {
        if left.is_empty() {
            return None;
        }
        if reason == Reason::Growing {
            return Some("grows no more".to_owned());
        }
        let mut fates: BTreeMap<Fate, Vec<Duration>> = BTreeMap::new();
        for &(id, since) in left {
            let (fate, after) = self.fate(id, since);
            fates.entry(fate).or_default().push(after);
        }
        let single = fates.len() == 1;
        let phrases = fates.into_iter().map(|(fate, after)| {
            let count = after.len();
            let phrase = phrase(reason, fate, after);
            if single { phrase } else { format!("{count} {phrase}") }
        });
        Some(phrases.collect::<Vec<_>>().join(", "))
    }

    fn fate(&self, id: ConnectionId, since: Timestamp) -> (Fate, Duration) {
        let Some(connection) = self.table.get(id) else {
            return (Fate::Closed, self.now.since(since));
        };
        let silent_since = connection.silent_since();
        if silent_since > since {
            return (Fate::UsedAgain, silent_since.since(since));
        }
        if connection.tcp_state.closed_by_process() {
            return (Fate::Closed, self.now.since(since));
        }
        let fate = self.judged.get(&id).map_or(Fate::NoLonger, |&reason| Fate::Judged(reason));
        (fate, Duration::ZERO)
    }
}

fn phrase(reason: Reason, fate: Fate, after: Vec<Duration>) -> String {
    let what = match (fate, reason) {
        (Fate::UsedAgain, Reason::ConnectStuck) => "went on",
        (Fate::UsedAgain, Reason::AwaitingResponse) => "answered",
        (Fate::UsedAgain, _) => "used again",
        (Fate::Closed, _) => "closed",
        (Fate::Judged(reason), _) => return format!("now judged {reason}"),
        (Fate::NoLonger, _) => return no_longer(),
    };
    format!("{what} after {}", span(after))
}

/// What is said when there is nothing better to say.
pub(super) fn no_longer() -> String {
    "no longer so".to_owned()
}
