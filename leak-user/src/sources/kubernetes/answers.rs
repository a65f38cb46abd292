//! Publishes answers to the event loop, and logs when a server stops or starts answering.

use tokio::sync::watch;

use crate::error::with_causes;
use crate::sources::kubernetes::directory::Directory;
use crate::sources::kubernetes::error::AskError;

/// Receives the answers and publishes them.
pub(super) struct Answers<'a> {
    known: &'a watch::Sender<Directory>,
    whom: &'static str,
    /// Whether the last request was answered; `None` before the first.
    answered: Option<bool>,
}

impl<'a> Answers<'a> {
    /// Publishes to `known`; `whom` names the server in the log.
    pub(super) fn new(known: &'a watch::Sender<Directory>, whom: &'static str) -> Self {
        Self { known, whom, answered: None }
    }

    /// Replaces all pods of the node.
    pub(super) fn replace(&mut self, pods: Directory) {
        let (whom, count) = (self.whom, pods.len());
        self.known.send_replace(pods);
        match self.answered.replace(true) {
            Some(true) => {}
            _ if count == 0 => {
                log::warn!("{whom} knows no pods of this node; is --node-name right?");
            }
            None => log::info!("{whom} names the pods of this node: {count}"),
            Some(false) => {
                log::info!("{whom} answers again and names the pods of this node: {count}");
            }
        }
    }

    /// Changes one pod.
    pub(super) fn change(&self, change: impl FnOnce(&mut Directory)) {
        self.known.send_modify(change);
    }

    /// Warns of a failure, once until the next answer.
    pub(super) fn failed(&mut self, error: &AskError) {
        let why = with_causes(error);
        let whom = self.whom;
        if self.answered.replace(false) == Some(false) {
            log::debug!("{whom}: {why}");
        } else {
            log::warn!(
                "{whom} cannot be queried for the names of pods: {why}; tracing continues without \
                 them, and it will be asked again"
            );
        }
    }
}
