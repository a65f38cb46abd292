//! What client and server say to each other, as far as reports tell it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::Timestamp;

/// State of the PostgreSQL dialogue; the names are those of the JSON report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WireState {
    /// The startup message is not answered yet.
    Startup,
    /// Ready for a query, outside a transaction.
    Idle,
    /// A request is unanswered.
    Busy,
    /// Ready for a query, inside a transaction.
    InTransaction,
    /// Ready for a query, inside a failed transaction.
    FailedTransaction,
    /// In COPY.
    Copy,
    /// Streaming replication.
    Replication,
    /// Cannot be known: encrypted, not PostgreSQL, or not seen.
    #[default]
    Unknown,
}

/// Who tells where a dialogue stands; the names are those of the JSON report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StateSource {
    /// The messages of the connection themselves.
    Wire,
    /// The driver, in the program's memory.
    Driver,
    /// The server, asked with `--pg-dsn`.
    Server,
}

/// What the wire tells of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wire {
    /// Where the dialogue stands.
    pub state: WireState,
    /// Whether it is encrypted.
    pub tls: bool,
    /// The client has sent `LISTEN`.
    pub listens: bool,
    /// It was opened to cancel a request on another connection.
    pub cancels: bool,
    /// SQLSTATE of the error with which the server refused the startup message.
    pub refused: Option<String>,
    /// The startup message's user.
    pub user: Option<String>,
    /// The startup message's database.
    pub database: Option<String>,
    /// The startup message's `application_name`.
    pub application_name: Option<String>,
    /// PID of the server's backend.
    pub backend_pid: Option<u32>,
    /// The text of the error with which the server refused the startup message, as far as it was
    /// kept.
    #[serde(default)]
    pub refused_why: Option<String>,
    /// When the server was first seen in the transaction under way; `None` when it is in none, or
    /// that cannot be seen.
    #[serde(default)]
    pub transaction_at: Option<Timestamp>,
    /// More than one thread has begun requests in that transaction.
    #[serde(default)]
    pub transaction_moved: bool,
    /// The server has agreed to encryption when it was asked.
    #[serde(default)]
    pub encryption_agreed: bool,
}
