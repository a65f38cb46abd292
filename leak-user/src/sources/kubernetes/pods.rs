//! Asks on a background thread, so that no answer ever blocks the event loop.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use kube::runtime::watcher::DefaultBackoff;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::background::background;
use crate::error::with_causes;
use crate::model::{Destination, Pod, ProcessInfo};
use crate::sources::kubernetes::answers::Answers;
use crate::sources::kubernetes::destinations::{Names, Wanted};
use crate::sources::kubernetes::directory::Directory;
use crate::sources::kubernetes::settings::{Asked, Kubernetes};
use crate::sources::kubernetes::{api, destinations, kubelet};

/// Most names of hosts to look up at once.
const LOOKUPS: usize = 4;
/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Most addresses to name.
const MAX_WANTED: usize = 256;

/// The event loop's view of this node's pods and of the names of servers' addresses.
#[derive(Clone, Debug)]
pub struct Pods {
    known: watch::Receiver<Directory>,
    wanted: watch::Sender<Wanted>,
    names: watch::Receiver<Names>,
}

impl Pods {
    /// Starts the thread, unless it is off. The thread ends when this and its clones are dropped.
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
        background("kubernetes", LOOKUPS, move || async move {
            tokio::select! {
                () = sender.closed() => {}
                never = keep_asking(&settings, &sender) => match never {},
                // A kubelet knows only its own node's pods.
                never = keep_naming(&mut to_name, &namer), if asked == Asked::Api => match never {},
            }
        })?;
        Ok(pods)
    }

    /// Waits for new answers; forever if nobody is asked.
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

    /// Sets the addresses of servers to name, instead of earlier ones.
    pub fn want(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        let wanted: Wanted = addresses.into_iter().take(MAX_WANTED).collect();
        self.wanted.send_if_modified(|before| {
            let differ = *before != wanted;
            *before = wanted;
            differ
        });
    }

    /// The addresses that have a name, with it.
    #[must_use]
    pub fn destinations(&self) -> Vec<(IpAddr, Destination)> {
        let names = self.names.borrow();
        names.iter().map(|(address, name)| (*address, name.clone())).collect()
    }

    /// The pod in which a process runs, if known.
    #[must_use]
    pub fn find(&self, process: &ProcessInfo) -> Option<Pod> {
        let (container, pod) = (process.container_id.as_deref(), process.pod_uid.as_deref());
        self.known.borrow().find(container, pod)
    }
}

async fn keep_asking(settings: &Kubernetes, known: &watch::Sender<Directory>) -> Infallible {
    let is_kubelet = settings.asked == Asked::Kubelet;
    let whom = if is_kubelet { "the kubelet" } else { "the API server" };
    let mut answers = Answers::new(known, whom);
    // Grows with each failure, with jitter so that not all nodes ask at once, and resets after a
    // while without failures.
    let mut pauses = DefaultBackoff::default();
    loop {
        // Credentials are read again each time: they may have been replaced.
        let Err(error) = if is_kubelet {
            kubelet::ask(settings, &mut answers).await
        } else {
            api::ask(settings, &mut answers).await
        };
        answers.failed(&error);
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
        let why = with_causes(&error);
        if std::mem::replace(&mut failing, true) {
            log::debug!("the API server: {why}");
        } else {
            log::warn!(
                "the API server cannot be queried for the names of servers' addresses: {why}; the \
                 addresses are shown instead, and it will be asked again"
            );
        }
        sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        // The other end was dropped: there is no thread.
        assert!(pods.known.has_changed().is_err());
    }
}
