//! Makes verdicts of accused connections.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::engine::detect::blame::Blame;
use crate::engine::detect::{CodeKey, Evidence, Reason, Severity, StackOf, Verdict, View};
use crate::engine::fate::Fate;
use crate::engine::senders::Sender;
use crate::engine::table::Connection;
use crate::model::{ProcessKey, StackId};

/// What the connections of one verdict have in common.
type Common = (ProcessKey, SocketAddr, StackOf, Option<CodeKey>);

impl<'a> View<'a> {
    /// Makes one verdict of all `accused` with the same process, server and code to blame; `say`
    /// gives its severity and evidence.
    pub(super) fn verdicts<E: Evidence + 'static>(
        &self,
        reason: Reason,
        accused: impl IntoIterator<Item = &'a Connection>,
        say: impl Fn(&[&'a Connection]) -> (Severity, E),
    ) -> Vec<Verdict> {
        let accused: Vec<&Connection> = accused.into_iter().collect();
        let blames = self.blame(reason, &accused);
        self.verdicts_by(reason, accused.into_iter().zip(blames), say)
    }

    /// The same, where it is known whom each connection blames.
    pub(super) fn verdicts_by<E: Evidence + 'static>(
        &self,
        reason: Reason,
        accused: impl IntoIterator<Item = (&'a Connection, Blame)>,
        say: impl Fn(&[&'a Connection]) -> (Severity, E),
    ) -> Vec<Verdict> {
        let mut alike: BTreeMap<Common, Vec<(&Connection, Blame)>> = BTreeMap::new();
        for (connection, blame) in accused {
            let is_unseen = self.cause(blame.stack.as_ref()).is_none();
            let sender = if is_unseen { self.sender_of(connection) } else { None };
            // Where nobody is named, stacks tell nothing apart.
            let named = blame.cause.is_some();
            let stack_of = if named { blame.stack_of } else { StackOf::LastUsedBy };
            let cause = blame.cause.clone().or_else(|| Some(CodeKey::of_sender(sender.as_ref()?)));
            let common = (connection.process, connection.endpoints.remote, stack_of, cause);
            alike.entry(common).or_default().push((connection, blame));
        }
        let verdict = |((process, remote, _, cause), mut blaming): (Common, Vec<_>)| {
            blaming.sort_unstable_by_key(|(connection, _): &(&Connection, Blame)| connection.id);
            let (members, blames): (Vec<_>, Vec<_>) = blaming.into_iter().unzip();
            let (severity, evidence) = say(&members);
            let shown = Blame::commonest(blames.iter());
            let sender = self.sender(&members, shown.stack.as_ref());
            Verdict {
                reason,
                severity,
                process,
                remote,
                pool: None,
                connections: members.iter().map(|connection| connection.id).collect(),
                evidence: Arc::new(evidence),
                stack_of: shown.stack_of,
                stack: shown.stack,
                cause,
                culprit: shown.culprit,
                culprit_uses: shown.uses,
                sender,
                fate: Fate::Unknown,
            }
        };
        alike.into_iter().map(verdict).collect()
    }

    /// Who sends the last statement of `members`, where their stack blames nobody.
    fn sender(&self, members: &[&Connection], stack: Option<&StackId>) -> Option<Sender> {
        if self.cause(stack).is_some() {
            return None;
        }
        members.iter().find_map(|connection| self.sender_of(connection))
    }
}
