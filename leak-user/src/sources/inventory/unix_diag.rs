//! Lists the connections to PostgreSQL's Unix sockets with sock_diag(7), in the calling thread's
//! network namespace.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use netlink_packet_core::{DecodeError, Parseable as _};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::unix::nlas::UnixDiagName;
use netlink_packet_sock_diag::unix::{ShowFlags, StateFlags, UnixRequest, UnixResponse};

use crate::sources::inventory::netlink::{self, DiagError};

/// How the file names of PostgreSQL's sockets begin; the port follows.
const PREFIX: &str = ".s.PGSQL.";

/// The client's end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sources) struct UnixClient {
    /// Its inode.
    pub(in crate::sources) inode: u64,
    /// The server's socket.
    pub(in crate::sources) path: PathBuf,
}

/// Lists the clients' ends. The kernel names the socket only at the server's.
///
/// # Errors
///
/// When the kernel cannot be asked, refuses, or its answer is malformed.
pub(in crate::sources) fn clients() -> Result<Vec<UnixClient>, DiagError> {
    let request = SockDiagMessage::UnixRequest(UnixRequest {
        state_flags: StateFlags::ESTABLISHED,
        inode: 0,
        show_flags: ShowFlags::NAME | ShowFlags::PEER,
        cookie: [0xff; 8],
    });
    netlink::dump(&netlink::request(request), client)
}

fn client(message: &[u8]) -> Result<Option<UnixClient>, DecodeError> {
    let response = UnixResponse::parse(message)?;
    let (Some(UnixDiagName::Pathname(path)), Some(peer)) = (response.name(), response.peer())
    else {
        return Ok(None);
    };
    let path = Path::new(path);
    let is_postgres = path.file_name().and_then(OsStr::to_str).is_some_and(is_postgres);
    Ok(is_postgres.then(|| UnixClient { inode: peer.into(), path: path.to_owned() }))
}

fn is_postgres(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|port| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn clients_of_postgresql_sockets_are_listed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(".s.PGSQL.6543");
        let listener = UnixListener::bind(&path).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        let _server = listener.accept().unwrap();
        let other = directory.path().join("another.socket");
        let other_listener = UnixListener::bind(&other).unwrap();
        let _other = (UnixStream::connect(&other).unwrap(), other_listener.accept().unwrap());
        let inode = rustix::fs::fstat(&client).unwrap().st_ino;
        let listed = clients().unwrap();
        assert!(listed.contains(&UnixClient { inode, path }), "{listed:?}");
        assert!(listed.iter().all(|one| one.path != other), "{listed:?}");
    }

    #[test]
    fn broken_messages_are_errors_or_nothing() {
        for length in 0..64 {
            // An error is as good as a result.
            let _ = client(&vec![0xff; length]);
            let _ = client(&vec![0; length]);
        }
    }
}
