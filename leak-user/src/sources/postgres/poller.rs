//! Polls every server on a background thread, so that neither a slow handshake nor a long list
//! ever blocks the event loop.

use std::collections::HashMap;
use std::future::pending;
use std::io;

use tokio::sync::{mpsc, watch};

use crate::background::background;
use crate::clock;
use crate::model::Timestamp;
use crate::model::server::ServerAnswer;
use crate::sources::postgres::client::ServerClient;
use crate::sources::postgres::dsn::Dsn;

/// Most answers waiting for the event loop.
const QUEUE: usize = 16;

/// A server's answer to one poll.
#[derive(Debug)]
pub struct PollAnswer {
    /// The server, as [`Dsn::name`] names it.
    pub server: String,
    /// When it was asked. Its answer holds from then on.
    pub at: Timestamp,
    /// Its answer; `None` while polling pauses after a failure.
    pub answer: Option<ServerAnswer>,
    poll: u64,
}

/// The event loop's side of the poller.
#[derive(Debug)]
pub struct SessionPoller {
    /// Counts the polls.
    polls: watch::Sender<u64>,
    answers: mpsc::Receiver<PollAnswer>,
    /// The latest poll that each server has answered.
    answered: HashMap<String, u64>,
}

impl SessionPoller {
    /// Starts the thread, which ends when this is dropped. Nothing is polled yet.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub fn start(servers: &[Dsn]) -> io::Result<Self> {
        let (polls, incoming) = watch::channel(0);
        let (outgoing, answers) = mpsc::channel(QUEUE);
        let servers: Vec<(String, Dsn)> = named(servers);
        let answered = servers.iter().map(|(name, _)| (name.clone(), 0)).collect();
        if servers.is_empty() {
            return Ok(Self { polls, answers, answered });
        }
        // A name that takes long to look up must not keep another server waiting.
        background("servers", servers.len(), move || async move {
            let tasks: Vec<_> = servers
                .into_iter()
                .map(|(name, dsn)| {
                    tokio::spawn(serve(name, dsn, incoming.clone(), outgoing.clone()))
                })
                .collect();
            for task in tasks {
                if let Err(error) = task.await {
                    log::error!("polling of a PostgreSQL server ended: {error}");
                }
            }
        })?;
        Ok(Self { polls, answers, answered })
    }

    /// Polls every server once more, after its pending answer if there is one.
    pub fn ask(&self) {
        self.polls.send_modify(|poll| *poll += 1);
    }

    /// Waits for the next answer; forever if there is no server.
    pub async fn answer(&mut self) -> PollAnswer {
        let Some(answer) = self.answers.recv().await else { return pending().await };
        self.answered.insert(answer.server.clone(), answer.poll);
        answer
    }

    /// The servers.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.answered.keys().map(String::as_str)
    }

    /// Whether every server has answered the latest poll.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let poll = *self.polls.borrow();
        self.answered.values().all(|&answered| answered >= poll)
    }
}

/// Gives each server a unique name.
fn named(servers: &[Dsn]) -> Vec<(String, Dsn)> {
    let mut named: Vec<(String, Dsn)> = Vec::new();
    for dsn in servers {
        let alike = named.iter().filter(|(_, other)| other.name() == dsn.name()).count();
        let name = match alike {
            0 => dsn.name().to_owned(),
            alike => format!("{} #{}", dsn.name(), alike + 1),
        };
        named.push((name, dsn.clone()));
    }
    named
}

/// Polls one server each time that it is asked to, until the event loop drops its side.
async fn serve(
    server: String,
    dsn: Dsn,
    mut polls: watch::Receiver<u64>,
    answers: mpsc::Sender<PollAnswer>,
) {
    let mut client = ServerClient::new(dsn);
    while polls.changed().await.is_ok() {
        let poll = *polls.borrow_and_update();
        let at = clock::now();
        let answer = client.sessions().await;
        if answers.send(PollAnswer { server: server.clone(), at, answer, poll }).await.is_err() {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_has_a_unique_name() {
        let dsn = |text: &str| Dsn::parse(text).unwrap();
        let servers = [dsn("host=a user=x"), dsn("host=b"), dsn("host=a user=x sslmode=disable")];
        let names: Vec<_> = named(&servers).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a:5432/x", "b:5432", "a:5432/x #2"]);
    }
}
