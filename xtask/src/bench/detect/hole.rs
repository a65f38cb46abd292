//! Servers that are of no help: one accepts connections and never says a word, one does not even accept them.

use std::{
    io,
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::Result;

/// What it accepts stays open until this value goes.
pub(super) struct Hole {
    port: u16,
    _accepted: mpsc::Receiver<TcpStream>,
}

impl Hole {
    /// Opens one on a free port of loopback.
    pub(super) fn open() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let (sender, accepted) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if sender.send(stream).is_err() {
                    return;
                }
            }
        });
        Ok(Self { port, _accepted: accepted })
    }

    /// Where it listens.
    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

/// A server whose queue is full: the kernel drops every further attempt to connect.
pub(super) struct FullQueue {
    port: u16,
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
}

impl FullQueue {
    /// Opens one on a free port of loopback.
    pub(super) fn open() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        // SAFETY: listen takes no pointers, and the descriptor is open.
        if unsafe { libc::listen(listener.as_raw_fd(), 0) } != 0 {
            return Err(io::Error::last_os_error().into());
        }
        let mut queued = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            queued.push(stream);
        }
        Ok(Self { port: address.port(), _listener: listener, _queued: queued })
    }

    /// Where it does not answer.
    pub(super) fn port(&self) -> u16 {
        self.port
    }
}
