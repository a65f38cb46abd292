//! Which kinds of lines are written.

use std::str::FromStr;

use strum::{IntoStaticStr, VariantArray};

use crate::engine::findings::Change;
use crate::model::Event;

/// A kind of line; the names are those of `event`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[expect(missing_docs, reason = "the schema describes each kind of line")]
pub enum EventKind {
    RunStarted,
    ConnectionOpened,
    ConnectionEstablished,
    ConnectionFailed,
    ConnectionClosed,
    Server,
    Finding,
    FindingOpened,
    FindingUpdated,
    FindingRetracted,
    Interval,
    Report,
}

/// A text that names no kind of line.
#[derive(Debug, thiserror::Error)]
#[error("there is no such event; there are {}", names().join(", "))]
pub struct NoEventKind;

impl FromStr for EventKind {
    type Err = NoEventKind;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = |kind: &Self| <&str>::from(*kind) == text;
        Self::VARIANTS.iter().copied().find(named).ok_or(NoEventKind)
    }
}

fn names() -> Vec<&'static str> {
    EventKind::VARIANTS.iter().map(|&kind| kind.into()).collect()
}

impl EventKind {
    /// Whether lines of this kind are written where nothing was asked for: `finding` tells what
    /// `finding_opened` and `finding_updated` tell.
    fn is_usual(self) -> bool {
        !matches!(self, Self::FindingOpened | Self::FindingUpdated)
    }

    /// The kind of line that an event makes, if it makes one.
    pub(super) fn of(event: &Event) -> Option<Self> {
        Some(match event {
            Event::Opened { .. } => Self::ConnectionOpened,
            Event::Established { .. } => Self::ConnectionEstablished,
            Event::Failed { .. } => Self::ConnectionFailed,
            Event::Closed { .. } => Self::ConnectionClosed,
            Event::ServerSessions { .. } => Self::Server,
            Event::Used { .. }
            | Event::Unchanged { .. }
            | Event::Inventory { .. }
            | Event::Uses { .. }
            | Event::StackResolved { .. }
            | Event::PoolsRead { .. }
            | Event::StatesRead { .. }
            | Event::Waiting { .. }
            | Event::UserSeen { .. }
            | Event::UserGone { .. } => return None,
        })
    }

    /// The kinds of lines that a change of a finding makes.
    pub(super) fn of_change(change: &Change) -> &'static [Self] {
        match change {
            Change::Opened(_) => &[Self::Finding, Self::FindingOpened],
            Change::Updated(..) => &[Self::Finding, Self::FindingUpdated],
            Change::Retracted(..) => &[Self::FindingRetracted],
        }
    }
}

/// Which kinds of lines are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Events(Vec<EventKind>);

impl Events {
    /// These kinds; the usual ones when there are none.
    #[must_use]
    pub fn new(kinds: Vec<EventKind>) -> Self {
        Self(kinds)
    }

    pub(super) fn want(&self, kind: EventKind) -> bool {
        if self.0.is_empty() { kind.is_usual() } else { self.0.contains(&kind) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_by_their_names() {
        for &kind in EventKind::VARIANTS {
            assert_eq!(<&str>::from(kind).parse::<EventKind>().unwrap(), kind);
        }
        let error = "findings".parse::<EventKind>().unwrap_err().to_string();
        assert!(error.contains("finding_opened"), "{error}");
    }

    #[test]
    fn what_is_asked_for_is_all_there_is() {
        let (usual, asked) = (Events::default(), Events::new(vec![EventKind::FindingOpened]));
        assert!(usual.want(EventKind::Finding) && !usual.want(EventKind::FindingOpened));
        assert!(!asked.want(EventKind::Finding) && asked.want(EventKind::FindingOpened));
    }
}
