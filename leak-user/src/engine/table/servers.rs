//! What PostgreSQL servers say of their sessions.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::model::server::{Listing, Session, SessionState, Settings};
use crate::model::{Timestamp, WireState};

/// How sure a match is, the surest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Surety {
    /// The client's address and port agree, and so does all else that is known.
    Address,
    /// The address differs, as behind address translation, but PID, time and names agree.
    Pid,
}

/// What a server says of one connection.
#[derive(Clone, Debug)]
pub struct ServerSide {
    /// The server's name.
    pub server: String,
    /// When it was asked: what it says was not so before.
    pub at: Timestamp,
    /// What it says.
    pub session: Session,
    pub(super) surety: Surety,
}

impl ServerSide {
    /// What its word means for the dialogue.
    #[must_use]
    pub fn dialogue(&self) -> WireState {
        if self.session.replication {
            return WireState::Replication;
        }
        match self.session.state {
            Some(SessionState::Active | SessionState::FastpathFunctionCall) => WireState::Busy,
            Some(SessionState::Idle) => WireState::Idle,
            Some(SessionState::IdleInTransaction) => WireState::InTransaction,
            Some(SessionState::IdleInTransactionAborted) => WireState::FailedTransaction,
            Some(SessionState::Disabled | SessionState::Starting) | None => WireState::Unknown,
        }
    }
}

/// How a server answered last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerStatus {
    /// It listed its sessions.
    Answering,
    /// All its connections are taken: what it said.
    Refusing(String),
    /// It could not be asked: why.
    Unreachable(String),
}

/// Sessions with something in common, and what they do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionGroup {
    /// How many there are.
    pub count: usize,
    /// How many of them are connections of traced processes.
    pub traced: usize,
    /// What they do; unknown where the server does not say.
    pub states: BTreeMap<Option<SessionState>, usize>,
}

impl SessionGroup {
    fn add(&mut self, session: &Session, traced: bool) {
        self.count += 1;
        self.traced += usize::from(traced);
        *self.states.entry(session.state).or_default() += 1;
    }
}

/// Whose sessions they are that no traced process owns.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stranger {
    /// The client's address; `None` on a Unix socket, or when it is hidden.
    pub client: Option<IpAddr>,
    /// `application_name`.
    pub application_name: Option<String>,
    /// User.
    pub user: Option<String>,
}

/// One server, as it has described itself.
#[derive(Clone, Debug)]
pub struct Server {
    /// How it answered last.
    pub status: ServerStatus,
    /// When it was asked last.
    pub at: Timestamp,
    /// What it allows; `None` until it has answered.
    pub settings: Option<Settings>,
    /// Sessions that count against `max_connections`, without the one that asked; `None` while it
    /// does not answer.
    pub used: Option<usize>,
    /// Sessions that are connections of traced processes.
    pub traced: usize,
    /// By `application_name`.
    pub applications: BTreeMap<Option<String>, SessionGroup>,
    /// Those that no traced process owns.
    pub unowned: BTreeMap<Stranger, SessionGroup>,
    /// Sessions of which the server hides what they do.
    pub hidden: usize,
    /// It had more sessions than are looked at.
    pub cut: bool,
    /// How often it listed its sessions.
    pub answers: u64,
    /// How often it refused because all its connections were taken.
    pub refusals: u64,
    /// How often it could not be asked.
    pub failures: u64,
}

impl Server {
    pub(super) fn new(at: Timestamp) -> Self {
        Self {
            status: ServerStatus::Answering,
            at,
            settings: None,
            used: None,
            traced: 0,
            applications: BTreeMap::new(),
            unowned: BTreeMap::new(),
            hidden: 0,
            cut: false,
            answers: 0,
            refusals: 0,
            failures: 0,
        }
    }

    /// Whether it has no connection left for users without privileges: the one that asks takes one,
    /// too.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let full = |settings: &Settings| {
            self.used.is_some_and(|used| used + 1 >= settings.usable() as usize)
        };
        matches!(self.status, ServerStatus::Refusing(_)) || self.settings.as_ref().is_some_and(full)
    }

    /// What it said of its sessions is no longer so.
    pub(super) fn forget_sessions(&mut self) {
        (self.used, self.traced, self.hidden, self.cut) = (None, 0, 0, false);
        self.applications.clear();
        self.unowned.clear();
    }

    /// Counts its sessions; `is_traced` tells those of traced processes.
    pub(super) fn count(&mut self, listing: &Listing, is_traced: impl Fn(&Session) -> bool) {
        self.forget_sessions();
        self.settings = Some(listing.settings.clone());
        (self.used, self.cut) = (Some(listing.used()), listing.cut);
        for session in &listing.sessions {
            let traced = is_traced(session);
            self.traced += usize::from(traced);
            self.hidden += usize::from(session.hidden);
            let application = self.applications.entry(session.application_name.clone());
            application.or_default().add(session, traced);
            if !traced {
                let stranger = Stranger {
                    client: session.client.map(|client| client.ip()),
                    application_name: session.application_name.clone(),
                    user: session.user.clone(),
                };
                self.unowned.entry(stranger).or_default().add(session, false);
            }
        }
    }
}
