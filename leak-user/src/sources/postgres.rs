//! What the servers themselves say of their sessions: the server join.
//!
//! [`Watch`] keeps one session to each server that `--pg-dsn` names and asks one short query an
//! interval, on a thread of its own. Its answers become [`crate::model::Event::ServerSessions`], from
//! which the table learns what the wire does not tell: the state of encrypted dialogues, the age of
//! transactions, and how many sessions the server has and allows.

mod client;
mod dsn;
mod masking;
mod passfile;
mod query;
mod tls;
mod watch;

pub use dsn::{Dsn, DsnError};
pub use masking::mask;
pub use watch::{Answer, Watch};
