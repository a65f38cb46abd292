//! A client of one server, which keeps its session and reconnects after failures.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, SimpleQueryMessage, SimpleQueryRow};

use crate::error::with_causes;
use crate::model::server::{Listing, ServerAnswer, Session, Settings};
use crate::sources::postgres::dsn::Dsn;
use crate::sources::postgres::{query, tls};

/// Time limit for connecting and for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The statement timeout is shorter than [`TIMEOUT`], and names refer to the system catalogue only.
const OPTIONS: &str = "-c statement_timeout=4000 -c search_path=pg_catalog \
                       -c default_transaction_read_only=on";
const APPLICATION_NAME: &str = "pgsocktrace";

/// Pause after the first failure; it doubles with each further failure.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A server and, while it is connected, the session.
pub(super) struct ServerClient {
    dsn: Dsn,
    session: Option<Open>,
    failures: u32,
    not_before: Option<Instant>,
}

/// A session with a server.
struct Open {
    client: Client,
    settings: Settings,
    driver: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        // If the server hangs, the task would never end by itself.
        self.driver.abort();
    }
}

impl ServerClient {
    pub(super) fn new(dsn: Dsn) -> Self {
        Self { dsn, session: None, failures: 0, not_before: None }
    }

    /// Lists the sessions of the server; `None` while it pauses after a failure.
    pub(super) async fn sessions(&mut self) -> Option<ServerAnswer> {
        if let Some(open) = &self.session {
            match timeout(TIMEOUT, list(open)).await {
                Ok(Ok(listing)) => return Some(ServerAnswer::Listed(listing)),
                // It was restarted or ended the session, so reconnect at once.
                Ok(Err(error)) if open.client.is_closed() => {
                    log::debug!("{}: {}", self.dsn.name(), sentence(&error));
                    self.session = None;
                }
                Ok(Err(error)) => {
                    self.session = None;
                    return Some(self.failed(Failure::from(error)));
                }
                Err(_) => {
                    self.session = None;
                    return Some(self.failed(timed_out()));
                }
            }
        }
        if self.not_before.is_some_and(|moment| Instant::now() < moment) {
            return None;
        }
        let asked = timeout(TIMEOUT, async {
            let open = self.open().await?;
            let listing = list(&open).await?;
            Ok::<_, Failure>((open, listing))
        });
        match asked.await.unwrap_or_else(|_| Err(timed_out())) {
            Ok((open, listing)) => {
                self.session = Some(open);
                (self.failures, self.not_before) = (0, None);
                Some(ServerAnswer::Listed(listing))
            }
            Err(failure) => Some(self.failed(failure)),
        }
    }

    fn failed(&mut self, failure: Failure) -> ServerAnswer {
        let pause = SHORTEST_PAUSE * 2_u32.saturating_pow(self.failures.min(8));
        self.failures += 1;
        self.not_before = Some(Instant::now() + pause.min(LONGEST_PAUSE));
        failure.0
    }

    async fn open(&self) -> Result<Open, Failure> {
        let mut dsn = self.dsn.clone();
        dsn.add_password().map_err(Failure::unreachable)?;
        let tls = tls::connector(&dsn).map_err(Failure::unreachable)?;
        let config = &mut dsn.config;
        config.connect_timeout(TIMEOUT);
        if config.get_application_name().is_none() {
            config.application_name(APPLICATION_NAME);
        }
        let options = match config.get_options() {
            Some(options) => format!("{options} {OPTIONS}"),
            None => OPTIONS.to_owned(),
        };
        config.options(options);
        let (client, connection) = config.connect(tls).await?;
        let name = self.dsn.name().to_owned();
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                log::debug!("{name}: {}", sentence(&error));
            }
        });
        let mut open = Open { client, settings: Settings::default(), driver };
        let rows = rows(&open.client, query::SETTINGS).await?;
        let row = rows
            .first()
            .ok_or_else(|| Failure::unreachable("it returned no settings".to_owned()))?;
        let settings = query::settings(column(row), &dsn.ports());
        open.settings = settings.map_err(Failure::unreachable)?;
        Ok(open)
    }
}

async fn list(open: &Open) -> Result<Listing, Error> {
    let rows = rows(&open.client, &query::sessions()).await?;
    let mut sessions: Vec<Session> =
        rows.iter().filter_map(|row| query::session(column(row))).collect();
    let cut = sessions.len() > query::MAX_SESSIONS;
    sessions.truncate(query::MAX_SESSIONS);
    Ok(Listing { settings: open.settings.clone(), sessions, cut })
}

/// Runs one statement with the simple protocol: rows come as text, and there is no prepared
/// statement that a pooler on the way could lose.
async fn rows(client: &Client, statement: &str) -> Result<Vec<SimpleQueryRow>, Error> {
    let messages = client.simple_query(statement).await?;
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    };
    Ok(messages.into_iter().filter_map(row).collect())
}

/// The value of a column; `None` also if there is no such column.
fn column<'a>(row: &'a SimpleQueryRow) -> impl Fn(usize) -> Option<&'a str> {
    |index| row.try_get(index).ok().flatten()
}

/// A failure as it is reported.
struct Failure(ServerAnswer);

impl Failure {
    fn unreachable(why: String) -> Self {
        Self(ServerAnswer::Unreachable { why })
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let why = sentence(&error);
        if error.code() == Some(&SqlState::TOO_MANY_CONNECTIONS) {
            Self(ServerAnswer::Refused { why })
        } else {
            Self::unreachable(why)
        }
    }
}

fn timed_out() -> Failure {
    Failure::unreachable(format!("no answer within {} s", TIMEOUT.as_secs()))
}

/// The server's error message, or the client's error with its causes.
fn sentence(error: &Error) -> String {
    /// Servers can send messages of any length.
    const LONGEST: usize = 300;
    let text = match error.as_db_error() {
        Some(said) => format!("{} (SQLSTATE {})", said.message(), said.code().code()),
        None => with_causes(error),
    };
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect()
}
