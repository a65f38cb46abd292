//! A throwaway PostgreSQL: own data directory, loopback only, gone with the value.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpListener},
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::process::{self, Guarded, is_root, which};

/// The port that the tracer watches unless told otherwise.
pub(crate) const DEFAULT_PORT: u16 = 5432;

/// The programs of PostgreSQL that are used here.
const PROGRAMS: [&str; 5] = ["initdb", "pg_isready", "pgbench", "postgres", "psql"];

/// How long the server may take to accept connections.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running server. Its fields are dropped in order: the process ends before its files go.
pub(crate) struct Postgres {
    server: Guarded,
    binaries: PathBuf,
    directory: TempDir,
    port: u16,
}

impl Postgres {
    /// Starts a server on port 5432, or on a free one when that is taken.
    pub(crate) fn start() -> Result<Self> {
        Self::launch(false)
    }

    /// Starts one that is made for many clients and can do TLS, with a certificate of its own.
    pub(crate) fn start_for_crowds() -> Result<Self> {
        Self::launch(true)
    }

    fn launch(for_crowds: bool) -> Result<Self> {
        let binaries = binaries().context("There is no PostgreSQL server on this machine.")?;
        let directory = tempfile::Builder::new().prefix("pgsocktrace-").tempdir()?;
        let account = account()?;
        if let Some((user, group)) = account {
            chown(directory.path(), Some(user), Some(group))?;
        }
        let command = |program: &str| {
            let own = binaries.join(program);
            let mut command = Command::new(if own.exists() { own } else { program.into() });
            command.current_dir(directory.path()).env("LC_ALL", "C").stdin(Stdio::null());
            if let Some((user, group)) = account {
                command.uid(user).gid(group);
            }
            command
        };
        let data = directory.path().join("data");
        process::output(
            command("initdb")
                .args(["--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8"])
                .arg("--pgdata")
                .arg(&data),
        )?;
        let port = free_port()?;
        let log = File::create(directory.path().join("log"))?;
        let mut settings = vec!["max_connections=200", "fsync=off"];
        if for_crowds {
            certify(command("openssl"), &data)?;
            settings = vec!["max_connections=1500", "fsync=off", "ssl=on", "max_wal_senders=20"];
        }
        // SIGQUIT: nothing in it is worth a checkpoint.
        let server = Guarded::spawn(
            command("postgres")
                .arg("-D")
                .arg(&data)
                .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"])
                .args(settings.iter().flat_map(|setting| ["-c", setting]))
                .args(["-c", &format!("unix_socket_directories={}", directory.path().display())])
                .stdout(log.try_clone()?)
                .stderr(log),
            libc::SIGQUIT,
        )?;
        let mut postgres = Self { server, binaries, directory, port };
        postgres.wait_until_ready()?;
        Ok(postgres)
    }

    /// The port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where PostgreSQL's own programs lie.
    pub(crate) fn programs(&self) -> &Path {
        &self.binaries
    }

    /// The certificate of a server that can do TLS; it is its own authority.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.directory.path().join("data/server.crt")
    }

    /// A connection string for drivers; the caller adds what else it wants.
    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// One of PostgreSQL's own client programs, told to talk TCP to this server.
    pub(crate) fn client(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.join(program));
        command
            .current_dir(self.directory.path())
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", "postgres")
            .env("PGDATABASE", "postgres")
            .stdin(Stdio::null());
        command
    }

    /// Runs a file of SQL.
    pub(crate) fn load(&self, file: &Path) -> Result<()> {
        process::output(
            self.client("psql").args(["-q", "-X", "-v", "ON_ERROR_STOP=1", "-f"]).arg(file),
        )
        .map(drop)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let end = Instant::now() + START_LIMIT;
        let log = self.directory.path().join("log");
        loop {
            self.server
                .ensure_running()
                .with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
            if process::output(&mut self.client("pg_isready")).is_ok() {
                return Ok(());
            }
            ensure!(Instant::now() < end, "PostgreSQL does not come up.");
            process::pause(Duration::from_millis(100))?;
        }
    }
}

/// The directory that holds all of PostgreSQL's programs, of which the `PATH` may show but a few:
/// the one where `postgres` on the `PATH` really lies, or where Debian puts the newest release.
pub(crate) fn binaries() -> Option<PathBuf> {
    let complete = |directory: &PathBuf| PROGRAMS.iter().all(|name| directory.join(name).exists());
    let on_path = which("postgres")
        .and_then(|postgres| Some(fs::canonicalize(postgres).ok()?.parent()?.to_owned()))
        .filter(complete);
    on_path.or_else(|| {
        fs::read_dir("/usr/lib/postgresql")
            .ok()?
            .flatten()
            .filter_map(|entry| {
                let release: u32 = entry.file_name().to_str()?.parse().ok()?;
                let binaries = entry.path().join("bin");
                complete(&binaries).then_some((release, binaries))
            })
            .max()
            .map(|(_, binaries)| binaries)
    })
}

/// Makes a server key and a certificate for 127.0.0.1 where PostgreSQL looks for them.
fn certify(mut openssl: Command, data: &Path) -> Result<()> {
    process::output(
        openssl
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30"])
            .args(["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"])
            // Strict clients take no authority's certificate for a server's.
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(data.join("server.key"))
            .arg("-out")
            .arg(data.join("server.crt")),
    )
    .map(drop)
}

/// The user and group to run the server as, which refuses to run as root.
fn account() -> Result<Option<(u32, u32)>> {
    if !is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    find_account(&users).context("There is no user postgres to run the server as.").map(Some)
}

/// The ids of the user `postgres` in a file like /etc/passwd.
fn find_account(users: &str) -> Option<(u32, u32)> {
    let mut fields = users.lines().find(|line| line.starts_with("postgres:"))?.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// The default port when nobody listens there, otherwise one that the kernel picks.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, DEFAULT_PORT))
        .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
    Ok(listener.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::find_account;

    #[test]
    fn finds_the_account_of_the_server() {
        let users = "root:x:0:0::/root:/bin/sh\npostgres:x:101:104:,,,:/var:/bin/bash\n";
        assert_eq!(find_account(users), Some((101, 104)));
        assert_eq!(find_account("root:x:0:0::/root:/bin/sh\n"), None);
        assert_eq!(find_account("postgres:x:\n"), None);
    }
}
