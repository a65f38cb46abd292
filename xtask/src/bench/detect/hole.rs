//! A server that accepts connections and never says a word.

use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
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
