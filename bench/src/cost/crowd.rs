//! Opens tens of thousands of connections, held by a small helper program.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use support::{
    command::check,
    process::{Guarded, Signal},
};

/// Connections of one process: the usual limit of open files leaves room for them.
pub(super) const EACH: usize = 15_000;

/// Connections that a listener keeps before anybody accepts them: the kernel's usual limit.
const BACKLOG: usize = 4_000;

/// Opens connections and holds them. A small program: what it takes to read a large one's symbols
/// is measured elsewhere.
const HOLDER: &str = include_str!("holder.c");

/// What is said on each connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Talk {
    Nothing = 0,
    /// The startup message, which is a request.
    Startup = 1,
}

/// Listeners on one port of many addresses, whose queues hold the connections.
pub(super) struct Crowd {
    pub(super) port: u16,
    /// Where the program that opens the connections was compiled.
    directory: TempDir,
    _listeners: Vec<TcpListener>,
}

impl Crowd {
    pub(super) fn open(size: usize) -> Result<Self> {
        let first = TcpListener::bind(address(0, 0))?;
        let port = first.local_addr()?.port();
        let mut listeners = vec![first];
        for number in 1..size.div_ceil(BACKLOG) {
            listeners.push(TcpListener::bind(address(number, port))?);
        }
        for listener in &listeners {
            deepen(listener)?;
        }
        let directory = TempDir::with_prefix("pgsocktrace-")?;
        let source = directory.path().join("holder.c");
        fs::write(&source, HOLDER)?;
        let mut compile = Command::new("gcc");
        check(compile.arg("-O2").arg(&source).arg("-o").arg(holder(&directory)))?;
        Ok(Self { port, directory, _listeners: listeners })
    }

    /// Has so many connections opened, by processes that hold them until they are let go.
    pub(super) fn hold(&self, size: usize, talk: Talk) -> Result<Vec<Guarded>> {
        let mut held = Vec::new();
        for first in (0..size).step_by(EACH) {
            let count = EACH.min(size - first);
            let arguments = [usize::from(self.port), first, count, BACKLOG, talk as usize];
            let mut command = Command::new(holder(&self.directory));
            command
                .args(arguments.map(|argument| argument.to_string()))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped());
            let mut holder = Guarded::spawn(&mut command, Signal::KILL)?;
            let stdout = holder.child().stdout.take().context("A holder has no output.")?;
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line)?;
            ensure!(line == "held\n", "{count} connections cannot be opened.");
            held.push(holder);
        }
        Ok(held)
    }
}

/// The program that holds connections.
fn holder(directory: &TempDir) -> PathBuf {
    directory.path().join("holder")
}

/// 127.0.0.1 and what follows it.
fn address(number: usize, port: u16) -> SocketAddrV4 {
    let number = u32::try_from(number).unwrap_or(0);
    SocketAddrV4::new(Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + number), port)
}

/// Makes a listener's queue as long as the kernel allows.
fn deepen(listener: &TcpListener) -> Result<()> {
    rustix::net::listen(listener, i32::try_from(BACKLOG)? + 96).context("listen(2) failed")
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn addresses_are_all_of_loopback() {
        assert_eq!(address(0, 80).to_string(), "127.0.0.1:80");
        assert_eq!(address(24, 80).to_string(), "127.0.0.25:80");
    }
}
