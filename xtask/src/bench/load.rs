//! Connections by the thousand, to a listener of our own that speaks no protocol.

use std::{
    io,
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

/// A listener on a free port of loopback.
pub(super) struct Server {
    listener: TcpListener,
    port: u16,
}

impl Server {
    pub(super) fn open() -> Result<Self> {
        allow_files()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        Ok(Self { listener, port })
    }

    /// Where it listens.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Opens a connection and returns a client's and a server's end. With several threads these
    /// may be of two connections; that each takes one keeps the queue of the listener short.
    pub(super) fn connect(&self) -> io::Result<(TcpStream, TcpStream)> {
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        let (server, _) = self.listener.accept()?;
        Ok((client, server))
    }

    /// Connects and closes in a loop on several threads; returns connections per second.
    ///
    /// Closes with a reset: thousands of ports in TIME_WAIT would end the run early.
    pub(super) fn storm(&self, threads: u32, duration: Duration) -> Result<f64> {
        let start = Instant::now();
        let work = || -> io::Result<u32> {
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
                .collect::<io::Result<Vec<u32>>>()
        })?;
        Ok(f64::from(counts.iter().sum::<u32>()) / start.elapsed().as_secs_f64())
    }
}

/// Lets this process open as many files as it may ask for: each connection takes two.
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

/// Makes the coming close of a socket a reset.
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
    fn a_storm_connects_many_times() {
        let server = Server::open().unwrap();
        assert!(server.storm(2, Duration::from_millis(100)).unwrap() > 20.0);
    }
}
