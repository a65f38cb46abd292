//! Load generator: thousands of connections to a listener that speaks a little of the protocol.

use std::hint::black_box;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

/// "Protocol 3.0, user u, database d":
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html>.
const STARTUP: &[u8] = b"\x00\x00\x00\x1b\x00\x03\x00\x00user\0u\0database\0d\0\0";

/// AuthenticationOk and ReadyForQuery.
const WELCOME: &[u8] = b"R\x00\x00\x00\x08\x00\x00\x00\x00Z\x00\x00\x00\x05I";

/// A query.
const REQUEST: &[u8] = b"Q\x00\x00\x00\x0dselect 1\0";

/// ReadyForQuery, idle.
const READY: &[u8] = b"Z\x00\x00\x00\x05I";

/// A listener on a free port of the loopback.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    port: u16,
}

impl Listener {
    /// Opens the listener, and raises this process's limit of open files.
    pub fn open() -> Result<Self> {
        allow_files()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        Ok(Self { listener, port })
    }

    /// The listener's port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Opens a connection and accepts one, to keep the listener's queue short. When several threads
    /// do this at once, the two ends may belong to different connections.
    fn connect(&self) -> io::Result<(TcpStream, TcpStream)> {
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        let (server, _) = self.listener.accept()?;
        Ok((client, server))
    }

    /// Sends `requests` requests on one connection, one at a time, from deep in a stack; the
    /// listener answers each. Returns the number of sends that began a request.
    pub fn converse(&self, requests: u64) -> Result<u64> {
        self.time(requests)?;
        Ok(requests + 1)
    }

    /// Like [`Self::converse`]; returns the time from the first request to the last answer.
    pub fn time(&self, requests: u64) -> Result<Duration> {
        let mut took = Duration::ZERO;
        self.talk(
            |mut client| {
                let start = Instant::now();
                for _ in 0..requests {
                    client.write_all(REQUEST)?;
                    client.read_exact(&mut [0; READY.len()])?;
                }
                took = start.elapsed();
                Ok(())
            },
            |server| answer(server, requests),
        )?;
        Ok(took)
    }

    /// Like [`Self::converse`], with `pace` requests per second for this duration.
    pub fn converse_at(&self, pace: u32, duration: Duration) -> Result<()> {
        let requests = (f64::from(pace) * duration.as_secs_f64()) as u64;
        self.talk(
            |mut client| {
                let start = Instant::now();
                for number in 0..requests {
                    let due = start + duration.mul_f64(number as f64 / requests as f64);
                    // Sleeping until an absolute time makes up for sleeps that last too long.
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    client.write_all(REQUEST)?;
                    client.read_exact(&mut [0; READY.len()])?;
                }
                Ok(())
            },
            |server| answer(server, requests),
        )
    }

    /// Opens `connections` connections and sends requests on them in turn, `pace` per second for
    /// this duration; the listener answers each. Returns the number of requests.
    pub fn converse_in_turn(
        &self,
        connections: usize,
        pace: u32,
        duration: Duration,
    ) -> Result<u64> {
        let mut pairs = Vec::new();
        for _ in 0..connections {
            let (client, server) = self.connect()?;
            exchange(&client, STARTUP, &server, WELCOME)?;
            pairs.push((client, server));
        }
        let (start, mut requests) = (Instant::now(), 0);
        while start.elapsed() < duration {
            for (client, server) in &pairs {
                let due = start + Duration::from_secs(requests) / pace;
                // Sleeping until an absolute time makes up for sleeps that last too long.
                thread::sleep(due.saturating_duration_since(Instant::now()));
                exchange(client, REQUEST, server, READY)?;
                requests += 1;
            }
        }
        Ok(requests)
    }

    /// Sends one request in this many pieces.
    pub fn send_many(&self, pieces: u64) -> Result<u64> {
        let row = [b'd', 0, 0, 0, 11, b'a', b' ', b'r', b'o', b'w', b'.', b'\n'];
        self.talk(
            |mut client| {
                client.write_all(REQUEST)?;
                (0..pieces).try_for_each(|_| client.write_all(&row))
            },
            |server| {
                let all = REQUEST.len() as u64 + pieces * row.len() as u64;
                io::copy(&mut server.take(all), &mut io::sink()).map(drop)
            },
        )?;
        Ok(pieces)
    }

    /// Receives one answer in this many pieces.
    pub fn receive_many(&self, pieces: u64) -> Result<u64> {
        let row = [b'D', 0, 0, 0, 11, 0, 1, 0, 0, 0, 1, b'1'];
        self.talk(
            |mut client| {
                client.write_all(REQUEST)?;
                (0..pieces).try_for_each(|_| client.read_exact(&mut row.clone()))
            },
            |mut server| {
                server.read_exact(&mut [0; REQUEST.len()])?;
                server.write_all(&row.repeat(usize::try_from(pieces).unwrap_or(0)))
            },
        )?;
        Ok(pieces)
    }

    /// Opens a connection, completes the startup, and runs the client's and the server's side.
    fn talk(
        &self,
        client: impl FnOnce(&TcpStream) -> io::Result<()> + Send,
        server: impl FnOnce(&TcpStream) -> io::Result<()> + Send,
    ) -> Result<()> {
        let (mine, mut theirs) = self.connect()?;
        mine.set_nodelay(true)?;
        theirs.set_nodelay(true)?;
        thread::scope(|scope| {
            let answering = scope.spawn(move || {
                theirs.read_exact(&mut [0; STARTUP.len()])?;
                theirs.write_all(WELCOME)?;
                server(&theirs)
            });
            let asking = scope.spawn(move || {
                deep_down(DEPTH, move || {
                    (&mine).write_all(STARTUP)?;
                    (&mine).read_exact(&mut [0; WELCOME.len()])?;
                    client(&mine)
                })
            });
            for side in [asking, answering] {
                side.join().unwrap_or_else(|_| Err(io::Error::other("panicked")))?;
            }
            Ok(())
        })
    }

    /// Connects and closes in a loop on several threads.
    ///
    /// It closes with a reset, because thousands of ports in TIME_WAIT would end the run early.
    pub fn storm(&self, threads: u32, duration: Duration) -> Result<Storm> {
        let start = Instant::now();
        let work = || -> io::Result<u64> {
            let mut count = 0;
            while start.elapsed() < duration {
                let (client, _server) = self.connect()?;
                reset_on_close(&client)?;
                count += 1;
            }
            Ok(count)
        };
        let counts = thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap_or_else(|_| Err(io::Error::other("panicked"))))
                .collect::<io::Result<Vec<u64>>>()
        })?;
        Ok(Storm { connections: counts.iter().sum(), took: start.elapsed() })
    }
}

/// Sends a message and waits for its answer.
fn exchange(
    mut client: &TcpStream,
    message: &[u8],
    mut server: &TcpStream,
    answer: &[u8],
) -> io::Result<()> {
    client.write_all(message)?;
    server.read_exact(&mut vec![0; message.len()])?;
    server.write_all(answer)?;
    client.read_exact(&mut vec![0; answer.len()])
}

/// Reads `requests` requests, and answers each with ReadyForQuery.
fn answer(mut server: &TcpStream, requests: u64) -> io::Result<()> {
    for _ in 0..requests {
        server.read_exact(&mut [0; REQUEST.len()])?;
        server.write_all(READY)?;
    }
    Ok(())
}

/// The result of [`Listener::storm`].
#[derive(Clone, Copy, Debug)]
pub struct Storm {
    /// Connections that were opened and closed.
    pub connections: u64,
    took: Duration,
}

impl Storm {
    /// Connections per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.connections as f64 / self.took.as_secs_f64()
    }
}

/// Depth of the client's calls. Their stack exceeds the initial copy.
const DEPTH: u32 = 16;

/// Makes a call below more than `depth` frames of at least 1 KiB each.
#[inline(never)]
fn deep_down<R>(depth: u32, call: impl FnOnce() -> R) -> R {
    let frame = black_box([0_u8; 1024]);
    let result = if depth == 0 { call() } else { deep_down(depth - 1, call) };
    black_box(&frame);
    result
}

/// Raises the limit of open files to its maximum: each connection takes two descriptors.
fn allow_files() -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a valid pointer to an `rlimit` that outlives them.
    let result = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes closing this socket send a reset.
fn reset_on_close(stream: &TcpStream) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the descriptor is open, and the pointer and length describe one whole `linger`.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_talk_to_the_end() {
        let server = Listener::open().unwrap();
        assert_eq!(server.converse(3).unwrap(), 4);
        assert!(server.time(3).unwrap() > Duration::ZERO);
        assert_eq!(server.send_many(3).unwrap(), 3);
        assert_eq!(server.receive_many(3).unwrap(), 3);
        assert!(server.converse_in_turn(2, 1000, Duration::from_millis(10)).unwrap() >= 2);
    }

    #[test]
    fn a_storm_connects_many_times() {
        let server = Listener::open().unwrap();
        assert!(server.storm(2, Duration::from_millis(100)).unwrap().connections > 2);
    }
}
