//! A stand-in for PostgreSQL: it says what a server says, and keeps nothing.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;

/// Longest message that is read.
const LONGEST: usize = 4096;

/// `AuthenticationOk` and `BackendKeyData`.
const WELCOME: &[u8] = b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\x10\x92\0\0\0\x01";

/// A server that listens until this process ends.
pub struct StandIn {
    port: u16,
}

impl StandIn {
    /// Listens on a free port of the loopback.
    ///
    /// # Errors
    ///
    /// When there is no such port.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let serve = move || {
            for client in listener.incoming().flatten() {
                // Without a thread for it, the connection ends.
                let _ = thread::Builder::new().spawn(move || converse(client));
            }
        };
        thread::Builder::new().name("stand-in".to_owned()).spawn(serve)?;
        Ok(Self { port })
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Answers until the client has gone, or says what a client does not say.
fn converse(mut client: TcpStream) -> io::Result<()> {
    let startup = body(&mut client)?;
    if startup.len() < 4 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut state = b'I';
    client.write_all(&[WELCOME, &ready(state)].concat())?;
    loop {
        let mut kind = [0];
        client.read_exact(&mut kind)?;
        let message = body(&mut client)?;
        if &kind != b"Q" {
            return Ok(());
        }
        let statement = message.split(|&byte| byte == 0).next().unwrap_or_default();
        let command = statement.split(|&byte| byte == b' ').next().unwrap_or_default();
        state = match command {
            b"begin" => b'T',
            b"commit" | b"rollback" => b'I',
            _ => state,
        };
        client.write_all(&[complete(command), ready(state)].concat())?;
    }
}

/// A message's body: its length, which counts itself, and that many bytes.
fn body(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    client.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    let length = length.checked_sub(4).filter(|&length| length <= LONGEST);
    let mut body = vec![0; length.ok_or(io::ErrorKind::InvalidData)?];
    client.read_exact(&mut body)?;
    Ok(body)
}

/// `CommandComplete`.
fn complete(command: &[u8]) -> Vec<u8> {
    let tag = command.to_ascii_uppercase();
    let length = u32::try_from(tag.len() + 5).unwrap_or(5);
    [b"C", &length.to_be_bytes()[..], &tag, b"\0"].concat()
}

/// `ReadyForQuery`.
fn ready(state: u8) -> Vec<u8> {
    vec![b'Z', 0, 0, 0, 5, state]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::client::Session;

    #[test]
    fn a_session_goes_from_idle_to_a_transaction_and_back() {
        let server = StandIn::start().unwrap();
        let mut session = Session::open(server.port()).unwrap();
        assert_eq!(session.query("select 1").unwrap(), b'I');
        assert_eq!(session.query("begin").unwrap(), b'T');
        assert_eq!(session.query("update stock set count = count - 1").unwrap(), b'T');
        assert_eq!(session.query("rollback").unwrap(), b'I');
    }

    #[test]
    fn what_is_no_message_ends_the_connection() {
        let server = StandIn::start().unwrap();
        for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0, 0, 0, 0], &[0xff; 64]] {
            let mut client = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
            client.write_all(bytes).unwrap();
            let mut answer = Vec::new();
            // A reset is as good as an end.
            let _ = client.read_to_end(&mut answer);
            assert_eq!(answer, b"");
        }
    }
}
