//! Connections by the thousand, to a listener of our own that speaks no protocol.

use std::{
    io,
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

/// A listener that accepts whatever comes and keeps it until the other side closes.
pub(super) struct Sink {
    port: u16,
}

impl Sink {
    /// Listens on a free port of loopback, for as long as this process lives.
    pub(super) fn open() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        thread::spawn(move || {
            let mut kept: Vec<TcpStream> = Vec::new();
            for accepted in listener.incoming().flatten() {
                // Bounded by forgetting what the client has closed.
                if kept.len() > 2000 {
                    kept.retain(is_open);
                }
                // A socket that cannot be made non-blocking could hang `is_open`: let it go.
                if accepted.set_nonblocking(true).is_ok() {
                    kept.push(accepted);
                }
            }
        });
        Ok(Self { port })
    }

    /// Where it listens.
    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

/// Whether the other side has not closed yet.
fn is_open(stream: &TcpStream) -> bool {
    matches!(stream.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// Connects and closes in a loop on several threads; returns connections per second.
///
/// Closes with a reset: thousands of ports in TIME_WAIT would end the run early.
pub(super) fn connect(port: u16, threads: u32, duration: Duration) -> Result<f64> {
    let start = Instant::now();
    let counts = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(move || -> io::Result<u32> {
                    let mut count = 0;
                    while start.elapsed() < duration {
                        reset(&TcpStream::connect((Ipv4Addr::LOCALHOST, port))?)?;
                        count += 1;
                    }
                    Ok(count)
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|_| Err(io::Error::other("panicked"))))
            .collect::<io::Result<Vec<u32>>>()
    })?;
    Ok(f64::from(counts.iter().sum::<u32>()) / start.elapsed().as_secs_f64())
}

/// Makes the coming close of a socket a reset.
fn reset(stream: &TcpStream) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
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
