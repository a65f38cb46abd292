//! Matching connections with the server's sessions.
//!
//! The server names a session's client by address and port, and the wire names the backend by its
//! PID. Neither is proof by itself: PIDs and ports are used again, other servers have the same
//! ones, and address translation changes what the server sees. The time at which the session began
//! tells them apart, and a session belongs to one connection.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::engine::table::Connection;
use crate::engine::table::servers::Surety;
use crate::model::server::{Listing, Session, Settings};
use crate::model::{ConnectionId, TcpState, Timestamp};

/// How much earlier than its connection a session may seem to have begun: ages are by the server's
/// clock, and its answer takes time.
const EARLIER: Duration = Duration::from_secs(2);
/// How much later: a busy server lets connections wait before it looks at them.
const LATER: Duration = Duration::from_secs(60);

/// The sessions of `listing`, by the connection that each belongs to. `at` is when the server was
/// asked.
pub(super) fn matches<'a, 'b>(
    connections: impl Iterator<Item = &'a Connection>,
    listing: &'b Listing,
    at: Timestamp,
) -> HashMap<ConnectionId, (Surety, &'b Session)> {
    let mut by_pid: HashMap<u32, usize> = HashMap::new();
    let mut by_client: HashMap<SocketAddr, usize> = HashMap::new();
    for (index, session) in listing.sessions.iter().enumerate() {
        by_pid.insert(session.pid, index);
        by_client.extend(session.client.map(|client| (client, index)));
    }
    let mut claims: HashMap<usize, Vec<(Surety, ConnectionId)>> = HashMap::new();
    for connection in connections {
        let by_client = by_client.get(&connection.endpoints.local);
        let by_pid = connection.wire.backend_pid.and_then(|pid| by_pid.get(&pid));
        let claim = [by_client, by_pid].into_iter().flatten().find_map(|&index| {
            let session = listing.sessions.get(index)?;
            Some((index, surety(connection, session, &listing.settings, at)?))
        });
        if let Some((index, surety)) = claim {
            claims.entry(index).or_default().push((surety, connection.id));
        }
    }
    let mut matches = HashMap::new();
    for (index, mut claimants) in claims {
        claimants.sort_unstable();
        let (Some(&(surety, id)), Some(session)) = (claimants.first(), listing.sessions.get(index))
        else {
            continue;
        };
        // Two connections with the same claim lie in different namespaces: nobody knows which.
        let ambiguous = claimants.get(1).is_some_and(|&(other, _)| other == surety);
        if !ambiguous {
            matches.insert(id, (surety, session));
        }
    }
    matches
}

/// How sure it is that `session` is the other end of `connection`; `None` when it is not.
fn surety(
    connection: &Connection,
    session: &Session,
    settings: &Settings,
    at: Timestamp,
) -> Option<Surety> {
    let ended = matches!(
        connection.tcp.state,
        TcpState::SynSent | TcpState::CloseWait | TcpState::LastAck | TcpState::Close
    );
    let began_then = began_then(connection, session, at);
    if ended || began_then == Some(false) || !names_agree(connection, session) {
        return None;
    }
    let same_pid = connection.wire.backend_pid.map(|pid| pid == session.pid);
    let local = connection.endpoints.local;
    match session.client {
        Some(client) if client == local => {
            let known = is_reached_at(settings, connection.endpoints.remote);
            // Every machine and namespace has the same loopback.
            let can_be = settings.is_local() || !is_everywhere(local.ip());
            let sure = known || began_then == Some(true);
            (same_pid != Some(false) && can_be && sure).then_some(Surety::Address)
        }
        // The same address with another port is another connection.
        Some(client) if client.ip() == local.ip() => None,
        // A session on a Unix socket is nobody's TCP connection, and who is hidden stays so.
        None => None,
        Some(_) => (same_pid == Some(true) && began_then == Some(true)).then_some(Surety::Pid),
    }
}

/// Whether the session began when the connection was opened; `None` when one of them is not known.
fn began_then(connection: &Connection, session: &Session, at: Timestamp) -> Option<bool> {
    let began = at.before(session.age?);
    match connection.opened_at {
        Some(opened) => Some(began >= opened.before(EARLIER) && began <= opened.after(LATER)),
        // All that is known is that it was there.
        None => (began > connection.first_seen.after(EARLIER)).then_some(false),
    }
}

/// Whether user and database are the same, as far as both are known.
fn names_agree(connection: &Connection, session: &Session) -> bool {
    let agree = |one: &Option<String>, other: &Option<String>| {
        one.is_none() || other.is_none() || one == other
    };
    agree(&connection.wire.user, &session.user)
        && agree(&connection.wire.database, &session.database)
}

/// Whether the server is known to be reached at this address.
fn is_reached_at(settings: &Settings, remote: SocketAddr) -> bool {
    let address = settings.address == Some(remote.ip()) || settings.is_local();
    address && settings.ports.contains(&remote.port())
}

fn is_everywhere(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback() || address.is_link_local(),
        IpAddr::V6(address) => address.is_loopback() || address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::{World, endpoints, listed, secs};

    /// The server's word at second `at` on a session that began `age` seconds before.
    fn session(id: u64, age: f64) -> Session {
        Session {
            pid: 1000 + u32::try_from(id).unwrap(),
            client: Some(endpoints(id).local),
            age: Some(Duration::from_secs_f64(age)),
            ..Session::default()
        }
    }

    fn listing(sessions: Vec<Session>) -> Listing {
        let settings = Settings {
            address: Some("127.0.0.1".parse().unwrap()),
            ports: vec![5432],
            ..Settings::default()
        };
        Listing { settings, sessions, cut: false }
    }

    /// The PID of the session that connection 1 is matched with at second 100.
    fn matched(world: &World, listing: &Listing) -> Option<(Surety, u32)> {
        let matches = matches(world.table.connections(), listing, secs(100.0));
        matches.get(&ConnectionId(1)).map(|&(surety, session)| (surety, session.pid))
    }

    fn opened_at_ten() -> World {
        let mut world = World::new();
        world.open(1, 10.0);
        world
    }

    fn knowing_its_backend(pid: u32) -> World {
        let mut world = opened_at_ten();
        world.set(1, |usage| {
            usage.wire.backend_pid = Some(pid);
            usage.wire.user = Some("shop".into());
        });
        world
    }

    #[test]
    fn by_address_and_port() {
        let world = opened_at_ten();
        let found = matched(&world, &listing(vec![session(2, 90.0), session(1, 90.0)]));
        assert_eq!(found, Some((Surety::Address, 1001)));
    }

    #[test]
    fn a_port_that_was_used_before_or_is_used_again_is_another_session() {
        let world = opened_at_ten();
        assert_eq!(matched(&world, &listing(vec![session(1, 95.0)])), None, "began before");
        assert_eq!(matched(&world, &listing(vec![session(1, 20.0)])), None, "began later");
        assert!(matched(&world, &listing(vec![session(1, 91.5)])).is_some(), "about then");
        assert!(matched(&world, &listing(vec![session(1, 80.0)])).is_some(), "it had to wait");
    }

    #[test]
    fn a_pid_that_is_used_again_is_another_session() {
        let world = knowing_its_backend(1001);
        assert_eq!(
            matched(&world, &listing(vec![session(1, 90.0)])),
            Some((Surety::Address, 1001))
        );
        let mut other = session(2, 90.0);
        other.pid = 1001;
        assert_eq!(matched(&world, &listing(vec![other])), None, "from another port");
        // The port is its own, but the server told another PID on the wire.
        assert_eq!(matched(&knowing_its_backend(7), &listing(vec![session(1, 90.0)])), None);
    }

    #[test]
    fn behind_address_translation_the_pid_and_the_time_decide() {
        let world = knowing_its_backend(1001);
        let translated =
            |age| Session { client: Some("10.9.9.9:777".parse().unwrap()), ..session(1, age) };
        assert_eq!(matched(&world, &listing(vec![translated(90.0)])), Some((Surety::Pid, 1001)));
        assert_eq!(matched(&world, &listing(vec![translated(10.0)])), None, "began later");
        let other_user = Session { user: Some("other".into()), ..translated(90.0) };
        assert_eq!(matched(&world, &listing(vec![other_user])), None);
        let no_pid = opened_at_ten();
        assert_eq!(matched(&no_pid, &listing(vec![translated(90.0)])), None);
    }

    #[test]
    fn sessions_on_unix_sockets_are_nobodys() {
        let world = knowing_its_backend(1001);
        let local = Session { client: None, ..session(1, 90.0) };
        assert_eq!(matched(&world, &listing(vec![local])), None);
    }

    #[test]
    fn what_is_older_than_the_trace_needs_the_servers_address() {
        let mut world = World::new();
        world.inventory(50.0, vec![listed(1, 20.0)]);
        let mut listing = listing(vec![session(1, 90.0)]);
        assert!(matched(&world, &listing).is_some());
        listing.settings.address = Some("10.0.0.5".parse().unwrap());
        assert_eq!(matched(&world, &listing), None, "another machine's loopback");
        listing.settings.address = None;
        assert!(matched(&world, &listing).is_some(), "asked over a Unix socket");
        listing.settings.ports = vec![6432];
        assert_eq!(matched(&world, &listing), None, "a server on another port");
        let young = session(1, 10.0);
        listing.settings.ports = vec![5432];
        listing.sessions = vec![young];
        assert_eq!(matched(&world, &listing), None, "began after it was listed");
    }

    #[test]
    fn the_same_tuple_in_two_namespaces_is_matched_with_neither() {
        let mut world = opened_at_ten();
        world.dial(2, 10.0);
        world.set(2, |usage| {
            usage.tcp_state = TcpState::Established;
            usage.endpoints = endpoints(1);
        });
        assert_eq!(matched(&world, &listing(vec![session(1, 90.0)])), None);
    }

    #[test]
    fn what_the_server_has_closed_has_no_session() {
        let mut world = opened_at_ten();
        world.set(1, |usage| {
            usage.tcp_state = TcpState::CloseWait;
            usage.state_changed_at = secs(20.0);
        });
        assert_eq!(matched(&world, &listing(vec![session(1, 90.0)])), None);
    }
}
