//! What the servers say comes into the table.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::engine::Fact;
use crate::engine::table::ServerStatus;
use crate::model::Event;
use crate::sources::postgres::{PollAnswer, SessionPoller};
use crate::trace::collector::Collector;

/// How long the last answers are waited for.
const PATIENCE: Duration = Duration::from_secs(2);

impl Collector {
    /// Takes in what the servers still have to say, but waits no longer than that is worth.
    pub(in crate::trace) async fn settle_servers(
        &mut self,
        servers: &mut SessionPoller,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !servers.is_idle() {
            tokio::select! {
                told = servers.answer() => self.take_server_answer(told)?,
                () = sleep_until(deadline) => break,
            }
        }
        Ok(())
    }

    /// Takes in a server's answer, and says when it answers no more, or again.
    pub(in crate::trace) fn take_server_answer(&mut self, told: PollAnswer) -> anyhow::Result<()> {
        let PollAnswer { server, at, answer, .. } = told;
        let Some(answer) = answer else { return Ok(()) };
        let event = Event::ServerSessions { server: server.clone(), at, answer: Box::new(answer) };
        let before = self.server_status(&server);
        self.tell(&Fact::Event(event))?;
        self.engine.flush()?;
        let after = self.server_status(&server);
        if before != after {
            self.tell_of_server(&server, before.as_ref(), after.as_ref());
        }
        Ok(())
    }

    fn server_status(&self, server: &str) -> Option<ServerStatus> {
        self.engine.table().servers().get(server).map(|server| server.status.clone())
    }

    fn tell_of_server(
        &self,
        name: &str,
        before: Option<&ServerStatus>,
        after: Option<&ServerStatus>,
    ) {
        match after {
            Some(ServerStatus::Answering) if before.is_some() => {
                log::info!("the server {name} answers again");
            }
            Some(ServerStatus::Answering) => {
                let server = self.engine.table().servers().get(name);
                let hidden = server.map_or(0, |server| server.hidden);
                if hidden > 0 {
                    log::warn!(
                        "the server {name} hides what {hidden} of its sessions do from this role; \
                         grant it pg_monitor"
                    );
                }
            }
            Some(ServerStatus::Refusing(why)) => log::warn!(
                "the server {name} lets nobody in, all its connections are taken: {why}; tracing \
                 goes on without its word"
            ),
            Some(ServerStatus::Unreachable(why)) => log::warn!(
                "the server {name} cannot be asked for its sessions: {why}; tracing goes on \
                 without its word"
            ),
            None => {}
        }
    }
}
