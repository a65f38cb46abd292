//! PostgreSQL servers as a source: their own view of their sessions.
//!
//! [`SessionPoller`] keeps one session to each server that `--pg-dsn` names and runs one short
//! query per interval, on a background thread. The answers become
//! [`crate::model::Event::ServerSessions`]. From them the table learns what the wire does not show:
//! the state of sessions under TLS, the age of transactions, and how many sessions the server has
//! and allows.

mod client;
mod comments;
mod dsn;
mod masking;
mod passfile;
mod poller;
mod query;
mod statements;
mod tls;

pub use dsn::{Dsn, DsnError};
pub use poller::{PollAnswer, SessionPoller};
pub use statements::WantedStatements;

/// Reads any bytes as a statement and as a text that may be one.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let statement = masking::mask(&text);
    comments::pairs(&text);
    leak_stacks::WantedTexts::beginning(&WantedStatements::new([statement.as_str()]), &text);
}
