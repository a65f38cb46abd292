//! Asking, on a thread of its own, again and again: no answer ever keeps the event loop waiting.

use std::convert::Infallible;
use std::future::pending;
use std::net::IpAddr;
use std::time::Duration;
use std::{io, thread};

use kube::runtime::watcher::{self, DefaultBackoff};
use tokio::runtime;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::model::Destination;
use crate::model::Pod;
use crate::model::process::ProcessInfo;
use crate::sources::kubernetes::destinations::{Names, Wanted};
use crate::sources::kubernetes::settings::{Asked, Kubernetes};
use crate::sources::kubernetes::{Directory, api, destinations, kubelet};
use crate::trace::sentence;

/// Between two attempts at the latest.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Why nobody has told.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// Neither a service account nor a kubeconfig says whom to ask, and as whom.
    #[error(transparent)]
    Credentials(Box<dyn std::error::Error + Send + Sync>),
    /// It was understood and refused, for want of permission mostly.
    #[error("{0}")]
    Refused(String),
    /// There was no answer.
    #[error(transparent)]
    Unanswered(kube::Error),
    /// It takes too long.
    #[error("there is no answer within {} s", .0.as_secs())]
    TooSlow(Duration),
    /// The answer ends too early, or not at all.
    #[error("the answer cannot be read")]
    Unreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer is something else.
    #[error("the answer is no list of pods")]
    Malformed(#[from] serde_json::Error),
    /// There were changes to come, for ever.
    #[error("the changes ended")]
    Ended,
    /// The host's name is not one that a node can have.
    #[error("the name of this node is not known: {0}; give --node-name")]
    NodeName(String),
}

impl From<kube::Error> for AskError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused(match status.message.trim() {
                "" => format!("{} {}", status.code, status.reason),
                message => message.to_owned(),
            }),
            other => Self::Unanswered(other),
        }
    }
}

impl From<watcher::Error> for AskError {
    fn from(error: watcher::Error) -> Self {
        match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => error.into(),
            watcher::Error::WatchError(status) => kube::Error::Api(status).into(),
            watcher::Error::NoResourceVersion => Self::Ended,
        }
    }
}

/// Most addresses that are to be named at once.
const MAX_WANTED: usize = 256;

/// The pods of this node and the names of servers' addresses, seen from the event loop.
#[derive(Clone, Debug)]
pub struct Pods {
    known: watch::Receiver<Directory>,
    wanted: watch::Sender<Wanted>,
    names: watch::Receiver<Names>,
}

impl Pods {
    /// Starts the thread, if anybody is to be asked. It ends when this and its clones are dropped.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub fn start(settings: &Kubernetes) -> io::Result<Self> {
        let (sender, known) = watch::channel(Directory::default());
        let (wanted, mut to_name) = watch::channel(Wanted::default());
        let (namer, names) = watch::channel(Names::default());
        let pods = Self { known, wanted, names };
        let asked = settings.asked.decided();
        if asked == Asked::Off {
            return Ok(pods);
        }
        let settings = Kubernetes { asked, ..settings.clone() };
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let body = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = sender.closed() => {}
                    never = keep_asking(&settings, &sender) => match never {},
                    // A kubelet knows its own node's pods only.
                    never = keep_naming(&mut to_name, &namer), if asked == Asked::Api => match never {},
                }
            });
        };
        thread::Builder::new().name("kubernetes".into()).spawn(body)?;
        Ok(pods)
    }

    /// Waits until something else is known; for ever when nobody is asked.
    pub async fn changed(&mut self) {
        let Self { known, names, .. } = self;
        let changed = tokio::select! {
            changed = known.changed() => changed,
            changed = names.changed() => changed,
        };
        if changed.is_err() {
            pending::<()>().await;
        }
    }

    /// Has these addresses of servers named, and no others any more.
    pub fn want(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        let wanted: Wanted = addresses.into_iter().take(MAX_WANTED).collect();
        self.wanted.send_if_modified(|before| {
            let differ = *before != wanted;
            *before = wanted;
            differ
        });
    }

    /// The addresses that have a name.
    #[must_use]
    pub fn destinations(&self) -> Vec<(IpAddr, Destination)> {
        let names = self.names.borrow();
        names.iter().map(|(address, name)| (*address, name.clone())).collect()
    }

    /// The pod in which a process runs, if that is known.
    #[must_use]
    pub fn find(&self, process: &ProcessInfo) -> Option<Pod> {
        let (container, pod) = (process.container_id.as_deref(), process.pod_uid.as_deref());
        self.known.borrow().find(container, pod)
    }
}

/// Where answers go.
pub(super) struct Answers<'a> {
    known: &'a watch::Sender<Directory>,
    whom: &'static str,
    /// Whether the last question was answered; `None` before the first.
    answered: Option<bool>,
}

impl Answers<'_> {
    /// All pods of the node.
    pub(super) fn replace(&mut self, pods: Directory) {
        let (whom, count) = (self.whom, pods.len());
        self.known.send_replace(pods);
        match self.answered.replace(true) {
            Some(true) => {}
            _ if count == 0 => {
                log::warn!("{whom} knows no pod of this node; is --node-name right?");
            }
            None => log::info!("{whom} names the pods of this node: {count}"),
            Some(false) => {
                log::info!("{whom} answers again and names the pods of this node: {count}");
            }
        }
    }

    /// One pod.
    pub(super) fn change(&self, change: impl FnOnce(&mut Directory)) {
        self.known.send_modify(change);
    }

    /// Says so, unless it was said.
    fn failed(&mut self, error: AskError) {
        let why = sentence(&error.into());
        let whom = self.whom;
        if self.answered.replace(false) == Some(false) {
            log::debug!("{whom}: {why}");
        } else {
            log::warn!(
                "{whom} cannot be asked for the names of pods: {why}; tracing goes on without, and it \
                 is asked again"
            );
        }
    }
}

async fn keep_asking(settings: &Kubernetes, known: &watch::Sender<Directory>) -> Infallible {
    let is_kubelet = settings.asked == Asked::Kubelet;
    let whom = if is_kubelet { "the kubelet" } else { "the API server" };
    let mut answers = Answers { known, whom, answered: None };
    // Grows with each failure, at random so that not all nodes ask at once, and starts anew after a
    // while without one.
    let mut pauses = DefaultBackoff::default();
    loop {
        // What a question needs is read anew: it may have been changed meanwhile.
        let Err(error) = if is_kubelet {
            kubelet::ask(settings, &mut answers).await
        } else {
            api::ask(settings, &mut answers).await
        };
        answers.failed(error);
        sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
    }
}

async fn keep_naming(
    wanted: &mut watch::Receiver<Wanted>,
    names: &watch::Sender<Names>,
) -> Infallible {
    let (mut pauses, mut failing) = (DefaultBackoff::default(), false);
    loop {
        let answered = || failing = false;
        let Err(error) = destinations::ask(wanted, names, answered).await;
        let why = sentence(&error.into());
        if std::mem::replace(&mut failing, true) {
            log::debug!("the API server: {why}");
        } else {
            log::warn!(
                "the API server cannot be asked whose the servers' addresses are: {why}; they are shown as \
                 they are, and it is asked again"
            );
        }
        sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn refusals_are_told_in_the_servers_words() {
        let words = "pods is forbidden: User \"a\" cannot list resource \"pods\"";
        let refused = || kube::Error::Api(Box::new(Status::failure(words, "Forbidden")));
        let watching = AskError::from(watcher::Error::InitialListFailed(refused()));
        for error in [AskError::from(refused()), watching] {
            assert_eq!(sentence(&error.into()), words);
        }
        let wordless = Status::failure("", "Unauthorized").with_code(401);
        let error = AskError::from(kube::Error::Api(Box::new(wordless)));
        assert_eq!(sentence(&error.into()), "401 Unauthorized");
    }

    #[test]
    fn nobody_is_asked_where_that_is_off() {
        let settings = Kubernetes {
            asked: Asked::Off,
            node_name: None,
            pod_label: Vec::new(),
            kubelet_url: http::Uri::from_static("http://127.0.0.1:1"),
            kubelet_insecure_tls: false,
        };
        let pods = Pods::start(&settings).unwrap();
        // The other end is gone: there is no thread.
        assert!(pods.known.has_changed().is_err());
    }
}
