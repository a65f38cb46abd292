//! Connections that look like PostgreSQL's and are not among those asked for: to other ports, and
//! to Unix sockets.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::PathBuf;

use crate::model::ProcessKey;
use crate::sources::inventory::holders::holders;
use crate::sources::inventory::unix_diag;
use crate::sources::inventory::{Inventory, InventoryError, Scope};
use crate::sources::procfs;

/// Ports that PostgreSQL and its poolers use, and who does.
const PORTS: &[(u16, &str)] =
    &[(5432, "PostgreSQL"), (5433, "a second PostgreSQL"), (6432, "PgBouncer")];

/// Connections of one process to one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// The process.
    pub process: ProcessKey,
    /// Where they go.
    pub place: Place,
    /// How many they are.
    pub count: usize,
}

impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { process, place, count } = self;
        let comm = procfs::describe(*process).map_or_else(|_| "?".to_owned(), |info| info.comm);
        let plural = if *count == 1 { "" } else { "s" };
        write!(f, "{comm:?} ({}) has {count} connection{plural} to {place}", process.pid)
    }
}

/// Where connections go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// To this port, which this program uses.
    Port(u16, &'static str),
    /// To this Unix socket.
    UnixSocket(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port, program) => {
                write!(f, "port {port}, which {program} uses: add -P {port}")
            }
            Self::UnixSocket(path) => {
                write!(f, "the Unix socket {:?}: only TCP is followed", path.display())
            }
        }
    }
}

/// Looks once, apart from `ports`, for connections of the processes in `scope`; those of this
/// process are left out. The most come first.
///
/// # Errors
///
/// When nothing can be listed.
pub fn look(ports: &[u16], scope: &Scope) -> Result<Vec<Elsewhere>, InventoryError> {
    let others: Vec<u16> =
        PORTS.iter().map(|(port, _)| *port).filter(|port| !ports.contains(port)).collect();
    let mut counts: BTreeMap<(ProcessKey, Place), usize> = BTreeMap::new();
    let listed = Inventory::take(&others, scope, &HashSet::new())?;
    for socket in listed.sockets.iter().filter(|socket| !socket.tcp_state.closed_by_process()) {
        let port = socket.endpoints.remote.port();
        let program = PORTS.iter().find(|(known, _)| *known == port);
        if let (Some(&holder), Some(&(_, program))) = (socket.held_by.first(), program) {
            *counts.entry((holder, Place::Port(port, program))).or_default() += 1;
        }
    }
    for (holder, path) in over_unix_sockets(scope)? {
        *counts.entry((holder, Place::UnixSocket(path))).or_default() += 1;
    }
    let own = std::process::id();
    let mut found: Vec<_> = counts
        .into_iter()
        .filter(|((process, _), _)| process.pid != own)
        .map(|((process, place), count)| Elsewhere { process, place, count })
        .collect();
    found.sort_by_key(|one| std::cmp::Reverse(one.count));
    Ok(found)
}

/// The holder and the socket of each connection over a Unix socket.
fn over_unix_sockets(scope: &Scope) -> Result<Vec<(ProcessKey, PathBuf)>, InventoryError> {
    // A kernel without the list has no news.
    let Ok(clients) = unix_diag::clients() else { return Ok(Vec::new()) };
    let paths: HashMap<u64, PathBuf> =
        clients.into_iter().map(|client| (client.inode, client.path)).collect();
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    let pids = match &scope.pids {
        Some(pids) => pids.iter().copied().collect(),
        None => procfs::all()?,
    };
    let held = holders(&paths.keys().copied().collect(), pids).by_inode;
    let first = |(inode, path)| Some((*held.get(&inode)?.iter().min()?, path));
    Ok(paths.into_iter().filter_map(first).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn places_say_what_to_do() {
        let port = Place::Port(6432, "PgBouncer").to_string();
        assert_eq!(port, "port 6432, which PgBouncer uses: add -P 6432");
        let path = Place::UnixSocket("/run/\u{1b}[2J/.s.PGSQL.5432".into()).to_string();
        assert!(!path.contains('\u{1b}') && path.contains(".s.PGSQL.5432"), "{path}");
    }

    #[test]
    fn the_holder_of_a_unix_connection_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(".s.PGSQL.5432");
        let listener = UnixListener::bind(&path).unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        let _server = listener.accept().unwrap();
        let me = procfs::identify(std::process::id()).unwrap();
        let scope = Scope { pids: Some(HashSet::from([me.pid])) };
        let found = over_unix_sockets(&scope).unwrap();
        assert_eq!(found.iter().filter(|one| **one == (me, path.clone())).count(), 1, "{found:?}");
    }
}
