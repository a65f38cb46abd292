//! The two statements that the poller runs, and how their rows are read.
//!
//! Source: PostgreSQL's documentation, "pg_stat_activity". The view exists in this form since
//! PostgreSQL 10, and so does the role `pg_monitor`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::model::server::{Session, SessionState, Settings};
use crate::sources::postgres::comments;
use crate::sources::postgres::masking::{ELLIPSIS, mask};

/// Most sessions to read.
pub(super) const MAX_SESSIONS: usize = 10_000;

/// `server_version_num` of the oldest supported server.
const OLDEST: u32 = 100_000;

/// The placeholder for a statement that the role may not see.
const HIDDEN: &str = "<insufficient privilege>";

/// A statement of so many bytes was cut by the server, by its usual `track_activity_query_size` of
/// 1,024 with a NUL: not within a character, which has at most 4 bytes.
const CUT: usize = 1020;

/// Most characters kept of a name; PostgreSQL itself keeps 63 bytes.
const LONGEST_NAME: usize = 128;

/// Reads settings that cannot change during a session.
pub(super) const SETTINGS: &str = "\
    SELECT current_setting('server_version_num'), current_setting('server_version'), \
    current_setting('max_connections'), current_setting('superuser_reserved_connections'), \
    current_setting('reserved_connections', true), host(inet_server_addr()), \
    current_setting('port')";

/// Reads the other sessions. Where the role may not see the backend's type, a user and a database
/// tell that it is a client's.
pub(super) fn sessions() -> String {
    let age =
        |of: &str| format!("trunc(extract(epoch FROM clock_timestamp() - {of}) * 1000)::int8");
    format!(
        "SELECT pid, host(client_addr), client_port, usename, datname, application_name, \
         backend_type = 'walsender', state, {}, {}, {}, wait_event_type, wait_event, \
         left(query, 1024), {} FROM pg_stat_activity \
         WHERE pid <> pg_backend_pid() AND CASE WHEN backend_type IS NULL \
         THEN usename IS NOT NULL AND datname IS NOT NULL \
         ELSE backend_type IN ('client backend', 'walsender') END ORDER BY pid LIMIT {}",
        age("backend_start"),
        age("xact_start"),
        age("state_change"),
        age("query_start"),
        MAX_SESSIONS + 1
    )
}

/// Reads the row of [`SETTINGS`]; `column` returns the value of a column.
///
/// # Errors
///
/// When the server is too old, or a value is not a number.
pub(super) fn settings<'a>(
    column: impl Fn(usize) -> Option<&'a str>,
    asked_port: &[u16],
) -> Result<Settings, String> {
    let number = |index: usize| column(index).and_then(|text| text.parse::<u32>().ok());
    let unreadable = || "its settings cannot be read".to_owned();
    let version = short(column(1).unwrap_or_default());
    if number(0).ok_or_else(unreadable)? < OLDEST {
        return Err(format!("PostgreSQL {version} is too old; version 10 or later is needed"));
    }
    let mut ports: Vec<u16> = column(6).and_then(|port| port.parse().ok()).into_iter().collect();
    ports.extend(asked_port);
    ports.dedup();
    Ok(Settings {
        version,
        max_connections: number(2).ok_or_else(unreadable)?,
        superuser_reserved: number(3).ok_or_else(unreadable)?,
        reserved: number(4).unwrap_or(0),
        address: column(5).and_then(address),
        ports,
    })
}

/// Reads a row of [`sessions`]; `None` if it has no PID.
pub(super) fn session<'a>(column: impl Fn(usize) -> Option<&'a str>) -> Option<Session> {
    let text = |index: usize| column(index).filter(|text| !text.is_empty()).map(short);
    // Ages are negative after the clock was set back.
    let age = |index: usize| {
        let milliseconds: i64 = column(index)?.parse().ok()?;
        Some(Duration::from_millis(milliseconds.try_into().unwrap_or(0)))
    };
    // Clients on Unix sockets have the port -1.
    let port = column(2).and_then(|port| port.parse::<u16>().ok());
    let client = column(1).and_then(address).zip(port);
    let query = column(13).unwrap_or_default();
    let hidden = query == HIDDEN;
    Some(Session {
        pid: column(0)?.parse().ok()?,
        client: client.map(|(address, port)| SocketAddr::new(address, port)),
        user: text(3),
        database: text(4),
        application_name: text(5),
        replication: column(6) == Some("t"),
        state: column(7).and_then(SessionState::from_server),
        age: age(8),
        transaction_age: age(9),
        state_age: age(10),
        query_age: age(14),
        wait: text(11).zip(text(12)),
        query: Some(statement(query)).filter(|masked| !hidden && !masked.is_empty()),
        comment: comments::pairs(query),
        hidden,
    })
}

/// A statement without its literals, marked where the server has cut it.
fn statement(query: &str) -> String {
    let mut masked = mask(query);
    if query.len() >= CUT && !masked.ends_with(ELLIPSIS) {
        masked.push(ELLIPSIS);
    }
    masked
}

/// Parses an address. The server reports IPv4 clients of an IPv6 socket as IPv4-mapped addresses.
fn address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

fn short(text: &str) -> String {
    text.chars().take(LONGEST_NAME).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row<'a>(columns: &'a [Option<&'a str>]) -> impl Fn(usize) -> Option<&'a str> {
        |index| columns.get(index).copied().flatten()
    }

    #[test]
    fn a_session_is_read() {
        let columns = [
            "4711",
            "::ffff:10.0.0.7",
            "41234",
            "shop",
            "orders",
            "api",
            "f",
            "idle in transaction",
            "90500",
            "60000",
            "-7",
            "Client",
            "ClientRead",
            "SELECT * FROM orders WHERE id = 42",
            "90600",
        ]
        .map(Some);
        let session = session(row(&columns)).unwrap();
        assert_eq!(session.pid, 4711);
        assert_eq!(session.client, Some("10.0.0.7:41234".parse().unwrap()));
        assert_eq!(session.state, Some(SessionState::IdleInTransaction));
        assert_eq!(session.age, Some(Duration::from_millis(90_500)));
        assert_eq!(session.transaction_age, Some(Duration::from_secs(60)));
        assert_eq!(session.state_age, Some(Duration::ZERO));
        assert_eq!(session.query_age, Some(Duration::from_millis(90_600)));
        assert_eq!(session.wait, Some(("Client".into(), "ClientRead".into())));
        assert_eq!(session.query.as_deref(), Some("SELECT * FROM orders WHERE id = ?"));
        assert!(!session.hidden && !session.replication);
    }

    #[test]
    fn what_the_role_may_not_see_is_unknown() {
        let mut columns = [None; 14];
        columns[0] = Some("17");
        columns[3] = Some("shop");
        columns[13] = Some(HIDDEN);
        let session = session(row(&columns)).unwrap();
        assert!(session.hidden);
        assert_eq!((session.client, session.state, session.query), (None, None, None));
    }

    #[test]
    fn a_session_on_a_unix_socket_has_no_address() {
        let mut columns = [None; 14];
        columns[0] = Some("17");
        columns[2] = Some("-1");
        assert_eq!(session(row(&columns)).unwrap().client, None);
        assert_eq!(session(row(&[Some("x")])), None);
        assert_eq!(session(row(&[])), None);
    }

    #[test]
    fn settings_are_read() {
        let columns = ["160003", "16.3", "100", "3", "5", "10.0.0.5", "5432"].map(Some);
        let settings = settings(row(&columns), &[6432]).unwrap();
        assert_eq!((settings.max_connections, settings.usable()), (100, 92));
        assert_eq!(settings.address, Some("10.0.0.5".parse().unwrap()));
        assert_eq!(settings.ports, [5432, 6432]);
        assert!(!settings.is_local());
    }

    #[test]
    fn old_and_strange_servers_are_told() {
        let columns = ["90624", "9.6.24", "100", "3"].map(Some);
        assert!(settings(row(&columns), &[]).unwrap_err().contains("9.6.24 is too old"));
        assert!(settings(row(&[]), &[]).is_err());
        let columns = ["150000", "15.0", "many", "3"].map(Some);
        assert!(settings(row(&columns), &[]).is_err());
    }
}
