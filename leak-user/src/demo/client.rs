//! A client's side of a session, and a pool of them.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};

/// Protocol 3.0, and who we are.
const STARTUP: &[u8] = b"\0\x03\0\0user\0shop\0database\0shop\0application_name\0demo-orders\0\0";

/// A session with the server.
pub(super) struct Session(TcpStream);

impl Session {
    /// Connects, and waits until the server is ready.
    #[inline(never)]
    pub(super) fn open(port: u16) -> io::Result<Self> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        let length = u32::try_from(STARTUP.len() + 4).unwrap_or(4);
        stream.write_all(&[&length.to_be_bytes(), STARTUP].concat())?;
        let mut session = Self(stream);
        session.until_ready()?;
        Ok(session)
    }

    /// Sends a statement, and waits for its end. Returns the state of the session.
    #[inline(never)]
    pub(super) fn query(&mut self, statement: &str) -> io::Result<u8> {
        let length = u32::try_from(statement.len() + 5).unwrap_or(5);
        let message = [b"Q", &length.to_be_bytes()[..], statement.as_bytes(), b"\0"].concat();
        self.0.write_all(&message)?;
        self.until_ready()
    }

    fn until_ready(&mut self) -> io::Result<u8> {
        loop {
            let mut header = [0; 5];
            self.0.read_exact(&mut header)?;
            let [kind, length @ ..] = header;
            let length = u64::from(u32::from_be_bytes(length)).saturating_sub(4);
            let mut body = Vec::new();
            (&mut self.0).take(length).read_to_end(&mut body)?;
            if kind == b'Z' {
                return Ok(body.first().copied().unwrap_or(b'I'));
            }
        }
    }
}

/// Sessions at rest. One is opened when there is none.
pub(super) struct Pool {
    port: u16,
    idle: Vec<Session>,
}

impl Pool {
    pub(super) fn new(port: u16) -> Self {
        Self { port, idle: Vec::new() }
    }

    /// Takes a session, to be given back.
    pub(super) fn take(&mut self) -> io::Result<Session> {
        match self.idle.pop() {
            Some(session) => Ok(session),
            None => Session::open(self.port),
        }
    }

    /// Gives a session back.
    pub(super) fn give_back(&mut self, session: Session) {
        self.idle.push(session);
    }
}
