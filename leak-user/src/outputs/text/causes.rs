//! Findings of one cause, together.

use std::cmp::Reverse;
use std::net::SocketAddr;

use crate::engine::detect::{Scope, Severity};
use crate::engine::findings::Finding;
use crate::engine::snapshot::Snapshot;
use crate::model::{ProcessKey, StackId};
use crate::outputs::text::phrase;

/// Findings with the same culprit in the same process, or else of the same stack.
pub(super) struct Cause<'a> {
    /// The gravest; of those, the biggest.
    pub(super) lead: &'a Finding,
    /// The others.
    pub(super) also: Vec<&'a Finding>,
}

#[derive(PartialEq)]
enum Code<'a> {
    Function(Option<&'a str>, Option<&'a str>),
    Stack(StackId),
}

#[derive(PartialEq)]
struct Key<'a> {
    process: ProcessKey,
    remote: SocketAddr,
    code: Code<'a>,
}

impl<'a> Key<'a> {
    /// `None` when the finding is about no code that others could have in common with it.
    fn of(snapshot: &Snapshot<'a>, finding: &'a Finding) -> Option<Self> {
        let verdict = &finding.verdict;
        if verdict.scope() == Scope::Server {
            return None;
        }
        let culprit = snapshot.culprit(verdict).filter(|frame| frame.function.is_some());
        let code = match culprit {
            Some(frame) => Code::Function(frame.function.as_deref(), frame.file.as_deref()),
            None => Code::Stack(verdict.stack?),
        };
        Some(Self { process: verdict.process, remote: verdict.remote, code })
    }
}

/// Groups findings, the gravest first, then the biggest.
pub(super) fn of<'a>(
    snapshot: &Snapshot<'a>,
    findings: impl IntoIterator<Item = &'a Finding>,
) -> Vec<Cause<'a>> {
    let mut findings: Vec<&Finding> = findings.into_iter().collect();
    // What is said of connections leads what is said of their pool.
    findings.sort_by_key(|finding| {
        let is_pool = finding.verdict.scope() == Scope::Pool;
        let weight = (finding.verdict.severity, !is_pool, size(finding));
        (Reverse(weight), finding.id)
    });
    let mut causes: Vec<(Option<Key<'_>>, Cause<'_>)> = Vec::new();
    for finding in findings {
        let key = Key::of(snapshot, finding);
        let known = causes.iter_mut().find(|(known, _)| key.is_some() && *known == key);
        match known {
            Some((_, cause)) => cause.also.push(finding),
            None => causes.push((key, Cause { lead: finding, also: Vec::new() })),
        }
    }
    let mut causes: Vec<_> = causes.into_iter().map(|(_, cause)| cause).collect();
    causes.sort_by_key(|cause| {
        let is_server = cause.lead.verdict.scope() == Scope::Server;
        (Reverse((is_server, cause.severity(), size(cause.lead))), cause.lead.id)
    });
    causes
}

fn size(finding: &Finding) -> usize {
    finding.verdict.connections.len() + phrase::younger(finding)
}

impl<'a> Cause<'a> {
    /// The lead and the others.
    pub(super) fn all(&self) -> impl Iterator<Item = &'a Finding> {
        std::iter::once(self.lead).chain(self.also.iter().copied())
    }

    /// The severity of the lead.
    pub(super) fn severity(&self) -> Severity {
        self.lead.verdict.severity
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outputs::testing::Run;

    #[test]
    fn findings_of_the_same_code_are_one_and_the_biggest_leads() {
        let mut run = Run::new();
        run.turn(200.0);
        let snapshot = run.snapshot(200.0);
        let open = run.ledger.open();
        let causes = of(&snapshot, open.iter().copied());
        assert_eq!(causes[0].severity(), Severity::Leak);
        assert_eq!((causes[0].lead.verdict.connections.len(), causes[0].also.len()), (11, 1));
        let told: usize = causes.iter().map(|cause| 1 + cause.also.len()).sum();
        assert_eq!(told, open.len(), "each is told once");
    }
}
