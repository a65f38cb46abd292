//! A server's answers, as the table takes them in.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a server answered when it was asked for its sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerAnswer {
    /// It listed them.
    Listed(Listing),
    /// It let nobody in because all its connections are taken: SQLSTATE 53300.
    Refused {
        /// What it said.
        why: String,
    },
    /// It could not be asked.
    Unreachable {
        /// Why.
        why: String,
    },
}

/// A server's sessions, without the one that asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// What stays the same until the server is restarted.
    pub settings: Settings,
    /// The sessions, by PID.
    pub sessions: Vec<Session>,
    /// There were more than are looked at.
    pub cut: bool,
}

impl Listing {
    /// Sessions that count against `max_connections`.
    #[must_use]
    pub fn used(&self) -> usize {
        self.sessions.iter().filter(|session| !session.replication).count()
    }
}

/// What a server allows, and where it was reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// `server_version`.
    pub version: String,
    /// `max_connections`.
    pub max_connections: u32,
    /// `superuser_reserved_connections`.
    pub superuser_reserved: u32,
    /// `reserved_connections`, since PostgreSQL 16.
    pub reserved: u32,
    /// The address that it was reached at, as it sees it itself; `None` over a Unix socket.
    pub address: Option<IpAddr>,
    /// The ports that it may be reached at: its own, and the one that was asked for.
    pub ports: Vec<u16>,
}

impl Settings {
    /// How many connections are there for users without privileges.
    #[must_use]
    pub fn usable(&self) -> u32 {
        self.max_connections.saturating_sub(self.superuser_reserved).saturating_sub(self.reserved)
    }

    /// Whether it runs on this machine, as far as the way to it tells.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.address.is_none_or(|address| address.is_loopback())
    }
}

/// A server's session with a client: a row of `pg_stat_activity`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// PID of the backend.
    pub pid: u32,
    /// The client as the server sees it; `None` for one on a Unix socket, or when it is hidden.
    pub client: Option<SocketAddr>,
    /// User.
    pub user: Option<String>,
    /// Database.
    pub database: Option<String>,
    /// `application_name`.
    pub application_name: Option<String>,
    /// It streams the write-ahead log and does not count against `max_connections`.
    pub replication: bool,
    /// What it does; `None` when the server hides it or does not say.
    pub state: Option<SessionState>,
    /// Time since the backend started.
    pub age: Option<Duration>,
    /// Time since its transaction began.
    pub transaction_age: Option<Duration>,
    /// Time since its state changed.
    pub state_age: Option<Duration>,
    /// Time since the latest statement began.
    #[serde(default)]
    pub query_age: Option<Duration>,
    /// What it waits for: the kind and the name, as in `Client` and `ClientRead`.
    pub wait: Option<(String, String)>,
    /// The latest statement without its literals.
    pub query: Option<String>,
    /// What a comment in the statement says of the request: `route`, `traceparent` and the like.
    #[serde(default)]
    pub comment: BTreeMap<String, String>,
    /// The role that asked may not see what it does.
    pub hidden: bool,
}

/// What a session does. The names are the server's, made identifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// It executes a statement.
    Active,
    /// It waits for a command, outside a transaction.
    Idle,
    /// It waits for a command, inside a transaction.
    IdleInTransaction,
    /// It waits for a command, inside a failed transaction.
    IdleInTransactionAborted,
    /// It executes a fast-path function.
    FastpathFunctionCall,
    /// The server does not track what it does.
    Disabled,
    /// It is being set up: since PostgreSQL 18.
    Starting,
}

impl SessionState {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Active,
        Self::Idle,
        Self::IdleInTransaction,
        Self::IdleInTransactionAborted,
        Self::FastpathFunctionCall,
        Self::Disabled,
        Self::Starting,
    ];

    /// Reads the server's name.
    #[must_use]
    pub fn from_server(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// The server's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Idle => "idle",
            Self::IdleInTransaction => "idle in transaction",
            Self::IdleInTransactionAborted => "idle in transaction (aborted)",
            Self::FastpathFunctionCall => "fastpath function call",
            Self::Disabled => "disabled",
            Self::Starting => "starting",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_read_by_the_names_they_have() {
        for state in SessionState::ALL {
            assert_eq!(SessionState::from_server(state.name()), Some(state));
        }
        assert_eq!(SessionState::from_server("dreaming"), None);
    }

    #[test]
    fn what_is_reserved_is_not_usable() {
        let settings = Settings {
            max_connections: 100,
            superuser_reserved: 3,
            reserved: 10,
            ..Settings::default()
        };
        assert_eq!(settings.usable(), 87);
        assert_eq!(Settings { superuser_reserved: 3, ..Settings::default() }.usable(), 0);
    }
}
