//! What PostgreSQL servers say of their sessions.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::clock;
use crate::engine::Engine;
use crate::engine::table::{Server, ServerStatus};
use crate::model::{Event, Fact};
use crate::outputs::OutputError;
use crate::sources::postgres::{PollAnswer, SessionPoller};
use crate::trace::session::Session;

/// How long the last answers are waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Waits for what the servers still have to say, but no longer than that is worth.
pub(super) async fn settle(
    servers: &mut SessionPoller,
    session: &mut Session,
) -> Result<(), OutputError> {
    let deadline = Instant::now() + PATIENCE;
    while !servers.is_idle() {
        tokio::select! {
            answer = servers.answer() => take(answer, session)?,
            () = sleep_until(deadline) => break,
        }
    }
    Ok(())
}

/// The servers that were asked and have neither listed their sessions nor said that they are full,
/// each with the reason where there is one.
pub(super) fn unanswered(servers: &SessionPoller, engine: &Engine) -> Vec<String> {
    let mut unanswered: Vec<String> = servers
        .names()
        .filter_map(|name| match engine.table().servers().get(name) {
            Some(server) if server.answers + server.refusals > 0 => None,
            Some(Server { status: ServerStatus::Unreachable(why), .. }) => {
                Some(format!("{name} ({why})"))
            }
            _ => Some(name.to_owned()),
        })
        .collect();
    unanswered.sort_unstable();
    unanswered
}

/// Tells a server's answer.
pub(super) fn take(answer: PollAnswer, session: &mut Session) -> Result<(), OutputError> {
    let PollAnswer { server, at, answer, .. } = answer;
    let Some(answer) = answer else { return Ok(()) };
    let event = Event::ServerSessions { server: server.clone(), at, answer: Box::new(answer) };
    let before = status(session.engine(), &server);
    session.tell(clock::now(), &Fact::Event(event))?;
    session.flush()?;
    let after = status(session.engine(), &server);
    if before != after {
        tell_of_change(session.engine(), &server, before.as_ref(), after.as_ref());
    }
    Ok(())
}

fn status(engine: &Engine, server: &str) -> Option<ServerStatus> {
    engine.table().servers().get(server).map(|server| server.status.clone())
}

/// Says when a server answers no more, or again.
fn tell_of_change(
    engine: &Engine,
    name: &str,
    before: Option<&ServerStatus>,
    after: Option<&ServerStatus>,
) {
    match after {
        Some(ServerStatus::Answering) if before.is_some() => {
            log::info!("the server {name} answers again");
        }
        Some(ServerStatus::Answering) => {
            let server = engine.table().servers().get(name);
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
             goes on without it"
        ),
        Some(ServerStatus::Unreachable(why)) => log::warn!(
            "the server {name} cannot be queried for its sessions: {why}; tracing goes \
             on without them"
        ),
        None => {}
    }
}
