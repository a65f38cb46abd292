//! Takes in what PostgreSQL servers answer.

use std::collections::{BTreeMap, HashSet};

use crate::engine::table::matching::matches;
use crate::engine::table::servers::{Server, ServerSide, ServerStatus};
use crate::engine::table::{Connection, ConnectionTable};
use crate::model::Timestamp;
use crate::model::server::{Listing, ServerAnswer};

/// Most servers remembered: more than anybody names, but a damaged recording cannot add without
/// end.
const MAX_SERVERS: usize = 64;

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
    use crate::model::server::{Session, SessionState};
    use crate::model::{ConnectionId, Event, WireState};

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
