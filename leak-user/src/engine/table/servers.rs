//! What PostgreSQL servers say of their sessions.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use crate::engine::table::matching::{Surety, matches};
use crate::engine::table::{Connection, ConnectionTable};
use crate::model::server::{Listing, ServerAnswer, Session, SessionState, Settings};
use crate::model::{Timestamp, WireState};

/// Most servers remembered: more than anybody names, but a damaged recording cannot add without
/// end.
const MAX_SERVERS: usize = 64;

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
    fn new(at: Timestamp) -> Self {
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
    fn forget_sessions(&mut self) {
        (self.used, self.traced, self.hidden, self.cut) = (None, 0, 0, false);
        self.applications.clear();
        self.unowned.clear();
    }

    /// Counts its sessions; `is_traced` tells those of traced processes.
    fn count(&mut self, listing: &Listing, is_traced: impl Fn(&Session) -> bool) {
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

impl ConnectionTable {
    /// The servers that were asked, by name.
    #[must_use]
    pub fn servers(&self) -> &BTreeMap<String, Server> {
        &self.servers
    }

    /// The server that has told of `connection`.
    #[must_use]
    pub fn server_of(&self, connection: &Connection) -> Option<&Server> {
        self.servers.get(&connection.server.as_ref()?.server)
    }

    /// Takes in what a server answered when it was asked at `at`.
    pub(super) fn hear(&mut self, name: &str, at: Timestamp, answer: &ServerAnswer) {
        if !self.servers.contains_key(name) && self.servers.len() >= MAX_SERVERS {
            return;
        }
        let server = self.servers.entry(name.to_owned()).or_insert_with(|| Server::new(at));
        server.at = at;
        let listing = match answer {
            ServerAnswer::Listed(listing) => {
                server.answers += 1;
                server.status = ServerStatus::Answering;
                listing
            }
            ServerAnswer::Refused { why } => {
                server.refusals += 1;
                server.status = ServerStatus::Refusing(why.clone());
                server.forget_sessions();
                &Listing::default()
            }
            ServerAnswer::Unreachable { why } => {
                server.failures += 1;
                server.status = ServerStatus::Unreachable(why.clone());
                server.forget_sessions();
                &Listing::default()
            }
        };
        let mut matched = matches(self.connections.values().map(Box::as_ref), listing, at);
        // What another server told more surely stands.
        matched.retain(|id, (surety, _)| {
            let told = self.connections.get(id).and_then(|known| known.server.as_ref());
            told.is_none_or(|told| told.server == name || told.surety > *surety)
        });
        if server.status == ServerStatus::Answering {
            let traced: HashSet<u32> = matched.values().map(|(_, session)| session.pid).collect();
            server.count(listing, |session| traced.contains(&session.pid));
        }
        for connection in self.connections.values_mut() {
            if let Some(&(surety, session)) = matched.get(&connection.id) {
                let (server, session) = (name.to_owned(), session.clone());
                connection.server = Some(Box::new(ServerSide { server, at, session, surety }));
            } else if connection.server.as_ref().is_some_and(|told| told.server == name) {
                connection.server = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::{World, secs, server_lists, session};
    use crate::model::{ConnectionId, Event};

    fn dialogue(world: &World, id: u64) -> WireState {
        world.table.get(ConnectionId(id)).unwrap().dialogue()
    }

    #[test]
    fn the_servers_word_counts_where_the_wire_says_nothing() {
        let mut world = World::new();
        for id in 1..=3 {
            world.open(id, 10.0);
        }
        world.request(1, 20.0, "pay", WireState::Unknown);
        world.request(2, 20.0, "pay", WireState::Idle);
        let word = |id| session(id, 20.0, SessionState::IdleInTransaction);
        world.hear(30.0, server_lists(vec![word(1), word(2)]));
        assert_eq!(dialogue(&world, 1), WireState::InTransaction);
        assert_eq!(dialogue(&world, 2), WireState::Idle, "the wire is there all the time");
        assert!(world.table.get(ConnectionId(3)).unwrap().server.is_none());

        world.request(1, 35.0, "pay", WireState::Unknown);
        assert_eq!(dialogue(&world, 1), WireState::Unknown, "that was before");
        world.hear(40.0, server_lists(vec![session(1, 30.0, SessionState::Active)]));
        assert_eq!(dialogue(&world, 1), WireState::Busy);
        assert!(world.table.get(ConnectionId(2)).unwrap().server.is_none(), "its session ended");
    }

    #[test]
    fn counts_both_sides() {
        let mut world = World::new();
        world.open(1, 10.0);
        let stranger = |id| Session {
            client: Some("10.1.1.1:5".parse().unwrap()),
            application_name: Some("cron".into()),
            ..session(id, 5.0, SessionState::Idle)
        };
        let walsender = Session { replication: true, client: None, ..stranger(9) };
        let sessions =
            vec![session(1, 20.0, SessionState::Idle), stranger(2), stranger(3), walsender];
        world.hear(30.0, server_lists(sessions));
        let server = &world.table.servers()["db"];
        assert_eq!((server.used, server.traced), (Some(3), 1));
        assert_eq!(server.applications[&Some("shop".into())].traced, 1);
        assert_eq!(server.applications[&Some("cron".into())].count, 3);
        let (stranger, group) = server.unowned.iter().next_back().unwrap();
        assert_eq!(stranger.client, Some("10.1.1.1".parse().unwrap()));
        assert_eq!((group.count, group.states[&Some(SessionState::Idle)]), (2, 2));
        assert!(!server.is_full());
    }

    #[test]
    fn is_full_when_nobody_else_gets_in() {
        let mut world = World::new();
        let sessions = |count| (0..count).map(|id| session(id, 5.0, SessionState::Idle)).collect();
        world.hear(30.0, server_lists(sessions(5)));
        assert!(!world.table.servers()["db"].is_full());
        world.hear(31.0, server_lists(sessions(6)));
        assert!(world.table.servers()["db"].is_full(), "7 usable, 6 used and one asks");
    }

    #[test]
    fn what_a_server_said_is_forgotten_when_it_says_no_more() {
        let mut world = World::new();
        world.open(1, 10.0);
        world.hear(30.0, server_lists(vec![session(1, 20.0, SessionState::Idle)]));
        assert!(world.table.get(ConnectionId(1)).unwrap().server.is_some());
        world.hear(31.0, ServerAnswer::Refused { why: "too many".into() });
        assert!(world.table.get(ConnectionId(1)).unwrap().server.is_none());
        let server = &world.table.servers()["db"];
        assert!(server.is_full());
        assert_eq!((server.used, server.traced, server.refusals), (None, 0, 1));
        assert_eq!(server.settings.as_ref().unwrap().max_connections, 10, "that stays");
        world.hear(32.0, ServerAnswer::Unreachable { why: "gone".into() });
        let server = &world.table.servers()["db"];
        assert_eq!(server.status, ServerStatus::Unreachable("gone".into()));
        assert_eq!((server.answers, server.failures), (1, 1));
    }

    #[test]
    fn a_surer_server_keeps_its_connection() {
        let mut world = World::new();
        world.open(1, 10.0);
        world.set(1, |usage| usage.wire.backend_pid = Some(1001));
        world.hear(30.0, server_lists(vec![session(1, 20.0, SessionState::Idle)]));
        let translated = Session {
            client: Some("10.9.9.9:7".parse().unwrap()),
            ..session(1, 20.0, SessionState::Active)
        };
        let event = Event::ServerSessions {
            server: "other".into(),
            at: secs(31.0),
            answer: Box::new(server_lists(vec![translated])),
        };
        world.apply(&event, secs(31.0));
        let told = world.table.get(ConnectionId(1)).unwrap().server.clone().unwrap();
        assert_eq!(told.server, "db");
        assert_eq!(world.table.servers()["other"].traced, 0);
    }
}
