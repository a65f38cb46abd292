//! Findings that are not told: known ones, each with a reason why.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::SystemTime;

use crate::engine::detect::{CodeKey, Reason, Verdict};
use crate::model::ProcessKey;
use leak_stacks::Glob;

/// A rule. What it leaves open matches everything; of the rest all has to match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppression {
    /// What is wrong with the connections.
    pub reason: Option<Reason>,
    /// Name of the process.
    pub comm: Option<Glob>,
    /// The function to blame.
    pub function: Option<Glob>,
    /// `application_name` of all the connections.
    pub application_name: Option<Glob>,
    /// Why nobody wants to hear of it.
    pub why: String,
    /// When the rule ends.
    pub until: Option<SystemTime>,
}

/// A rule, and what it has hidden.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppressed {
    /// The rule.
    pub rule: Suppression,
    hidden: HashSet<Hidden>,
}

/// What would be one finding.
type Hidden = (Reason, ProcessKey, SocketAddr, Option<CodeKey>);

/// Most findings that are counted for a rule.
const MAX_HIDDEN: usize = 1024;

impl Suppressed {
    pub(in crate::engine) fn new(rule: Suppression) -> Self {
        Self { rule, hidden: HashSet::new() }
    }

    pub(in crate::engine) fn add(&mut self, verdict: &Verdict) {
        let Verdict { reason, process, remote, cause, .. } = verdict;
        if self.hidden.len() < MAX_HIDDEN {
            self.hidden.insert((*reason, *process, *remote, cause.clone()));
        }
    }

    /// How many findings it has hidden so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.hidden.len()
    }
}

/// What a rule can ask of a verdict.
pub(in crate::engine) struct Subject<'a> {
    pub(in crate::engine) verdict: &'a Verdict,
    pub(in crate::engine) comm: Option<&'a str>,
    pub(in crate::engine) function: Option<&'a str>,
    pub(in crate::engine) applications: Vec<Option<&'a str>>,
}

impl Suppression {
    /// Whether it has ended by `at`.
    #[must_use]
    pub fn has_ended(&self, at: SystemTime) -> bool {
        self.until.is_some_and(|until| until <= at)
    }

    /// Whether it hides a verdict. What is unknown does not match.
    pub(in crate::engine) fn hides(&self, subject: &Subject<'_>, at: SystemTime) -> bool {
        let matches = |pattern: &Option<Glob>, name: Option<&str>| {
            pattern.as_ref().is_none_or(|glob| name.is_some_and(|name| glob.matches(name)))
        };
        let applications = &subject.applications;
        !self.has_ended(at)
            && self.reason.is_none_or(|reason| reason == subject.verdict.reason)
            && matches(&self.comm, subject.comm)
            && matches(&self.function, subject.function)
            && applications.iter().all(|&name| matches(&self.application_name, name))
            && (self.application_name.is_none() || !applications.is_empty())
    }
}
