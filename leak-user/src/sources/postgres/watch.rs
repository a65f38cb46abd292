//! All servers, asked on a thread of their own: neither a slow handshake nor a long list ever keeps
//! the event loop waiting.

use std::collections::HashMap;
use std::future::pending;
use std::{io, thread};

use tokio::runtime;
use tokio::sync::{mpsc, watch};

use crate::clock;
use crate::model::Timestamp;
use crate::model::server::ServerAnswer;
use crate::sources::postgres::client::Asker;
use crate::sources::postgres::dsn::Dsn;

/// Answers that may wait for the event loop.
const QUEUE: usize = 16;

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    /// The server's name.
    pub server: String,
    /// When it was asked: what it says was not so before.
    pub at: Timestamp,
    /// What it said; `None` while it is left alone after a failure.
    pub answer: Option<ServerAnswer>,
    look: u64,
}

/// The servers, seen from the event loop.
#[derive(Debug)]
pub struct Watch {
    looks: watch::Sender<u64>,
    answers: mpsc::Receiver<Answer>,
    /// The latest look that each server has answered.
    answered: HashMap<String, u64>,
}

impl Watch {
    /// Starts the thread, which ends when this is dropped. Nothing is asked yet.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub fn start(servers: &[Dsn]) -> io::Result<Self> {
        let (looks, incoming) = watch::channel(0);
        let (outgoing, answers) = mpsc::channel(QUEUE);
        let servers: Vec<(String, Dsn)> = named(servers);
        let answered = servers.iter().map(|(name, _)| (name.clone(), 0)).collect();
        if servers.is_empty() {
            return Ok(Self { looks, answers, answered });
        }
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("servers".into()).spawn(move || {
            runtime.block_on(async move {
                let tasks: Vec<_> = servers
                    .into_iter()
                    .map(|(name, dsn)| {
                        tokio::spawn(serve(name, dsn, incoming.clone(), outgoing.clone()))
                    })
                    .collect();
                for task in tasks {
                    if let Err(error) = task.await {
                        log::error!("a server is asked no more: {error}");
                    }
                }
            });
        })?;
        Ok(Self { looks, answers, answered })
    }

    /// Has every server asked once more. One that still owes an answer is asked after that.
    pub fn ask(&self) {
        self.looks.send_modify(|look| *look += 1);
    }

    /// The next answer; for ever in coming when there is no server.
    pub async fn answer(&mut self) -> Answer {
        let Some(answer) = self.answers.recv().await else { return pending().await };
        self.answered.insert(answer.server.clone(), answer.look);
        answer
    }

    /// Whether every server has answered what it was last asked.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let look = *self.looks.borrow();
        self.answered.values().all(|&answered| answered >= look)
    }
}

/// Each server once, by a name of its own.
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

/// Asks one server whenever there is a new look, until the other side is gone.
async fn serve(
    server: String,
    dsn: Dsn,
    mut looks: watch::Receiver<u64>,
    answers: mpsc::Sender<Answer>,
) {
    let mut asker = Asker::new(dsn);
    while looks.changed().await.is_ok() {
        let look = *looks.borrow_and_update();
        let at = clock::now();
        let answer = asker.ask().await;
        if answers.send(Answer { server: server.clone(), at, answer, look }).await.is_err() {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_has_a_name_of_its_own() {
        let dsn = |text: &str| Dsn::parse(text).unwrap();
        let servers = [dsn("host=a user=x"), dsn("host=b"), dsn("host=a user=x sslmode=disable")];
        let names: Vec<_> = named(&servers).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a:5432/x", "b:5432", "a:5432/x #2"]);
    }
}
