//! Servers that are not PostgreSQL: for other network namespaces and ports, and for misbehaviour.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// How the server behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Like PostgreSQL: answers the startup message and any query.
    Postgres,
    /// Like a web server: answers anything with a page.
    Http,
    /// Answers anything with meaningless bytes.
    Noise,
    /// Accepts connections and never sends anything.
    Mute,
    /// Has a full accept queue: the handshake hangs.
    Full,
}

/// A listening server; its threads end when it is dropped.
pub struct FakeServer {
    port: u16,
    stop: Arc<AtomicBool>,
    clients: Arc<Mutex<Vec<TcpStream>>>,
}

impl FakeServer {
    /// Listens on a free port of the loopback.
    pub fn start(manner: Manner) -> Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST, manner)
    }

    /// Listens on a free port of an address, in a network namespace without other listeners.
    pub fn start_at(address: Ipv4Addr, manner: Manner) -> Result<Self> {
        let listener = TcpListener::bind((address, 0))?;
        listener.set_nonblocking(true)?;
        let server = Self {
            port: listener.local_addr()?.port(),
            stop: Arc::default(),
            clients: Arc::default(),
        };
        if manner == Manner::Full {
            server.fill(&listener)?;
        }
        let (stop, clients) = (server.stop.clone(), server.clients.clone());
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let pause = || thread::sleep(Duration::from_millis(10));
                if manner == Manner::Full {
                    pause();
                    continue;
                }
                match listener.accept() {
                    Ok((client, _)) => welcome(client, manner, &clients),
                    Err(_) => pause(),
                }
            }
        });
        Ok(server)
    }

    /// Shrinks the listener's accept queue to one connection, and opens that connection.
    fn fill(&self, listener: &TcpListener) -> Result<()> {
        rustix::net::listen(listener, 0).context("listen")?;
        let filler = TcpStream::connect(("127.0.0.1", self.port))?;
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).push(filler);
        Ok(())
    }

    /// The server's port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            // Fails only if the client has closed already.
            let _ = client.shutdown(Shutdown::Both);
        }
    }
}

fn welcome(client: TcpStream, manner: Manner, clients: &Mutex<Vec<TcpStream>>) {
    if client.set_nonblocking(false).is_err() {
        return;
    }
    if let Ok(copy) = client.try_clone() {
        clients.lock().unwrap_or_else(PoisonError::into_inner).push(copy);
    }
    // An I/O error means that the client is gone; its thread then ends, as it should.
    thread::spawn(move || {
        let _ = converse(client, manner);
    });
}

fn converse(mut client: TcpStream, manner: Manner) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    let mut first = true;
    loop {
        if client.read(&mut buffer)? == 0 {
            return Ok(());
        }
        match manner {
            Manner::Postgres => client.write_all(&answer(first))?,
            Manner::Http => {
                client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
            }
            Manner::Noise => client.write_all(&[0x80, 0xff, 0x00, 0x5a, 0x00, 0x00])?,
            Manner::Mute | Manner::Full => {}
        }
        first = false;
    }
}

/// `AuthenticationOk` and `BackendKeyData`, or `EmptyQueryResponse`; then `ReadyForQuery`.
fn answer(first: bool) -> Vec<u8> {
    let ready = b"Z\0\0\0\x05I";
    if first {
        [&b"R\0\0\0\x08\0\0\0\0"[..], b"K\0\0\0\x0c\0\0\x10\x92\0\0\0\x01", ready].concat()
    } else {
        [&b"I\0\0\0\x04"[..], ready].concat()
    }
}
