//! A private PostgreSQL server, deleted with its data.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use support::command::output;
use support::postgres;
use support::process::is_root;
use tempfile::TempDir;

use crate::certificates;
use crate::leftovers;
use crate::process::{Guarded, Signal, bound, eventually};

/// Environment variable: a data directory made by [`Server::prepare`]; servers start on copies of
/// it.
pub const PREPARED: &str = "LEAK_TESTS_DATA";

/// The superuser, and the only user.
pub const USER: &str = "postgres";

/// The port that the tracer watches by default.
const DEFAULT_PORT: u16 = 5432;

/// The purpose of a server, which decides its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Tests: starts quickly, has room for many clients, supports TLS as `localhost`.
    Tests,
    /// Measurements: PostgreSQL's default configuration.
    Measurements,
    /// Many programs at once: room for more clients, replication, TLS as `127.0.0.1`.
    Crowds,
}

impl Purpose {
    fn settings(self) -> &'static str {
        match self {
            Self::Tests => {
                "max_connections = 700\n\
                 shared_buffers = 16MB\n\
                 full_page_writes = off\n\
                 autovacuum = off\n\
                 ssl = on\n\
                 log_min_messages = warning\n"
            }
            Self::Measurements => "max_connections = 200\n",
            Self::Crowds => "max_connections = 1500\nmax_wal_senders = 20\nssl = on\n",
        }
    }

    /// The certificate's name and its extensions.
    fn certificate(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Tests | Self::Measurements => ("localhost", &[]),
            // Strict clients reject a CA certificate as a server certificate.
            Self::Crowds => {
                const EXTENSIONS: [&str; 2] =
                    ["basicConstraints=critical,CA:FALSE", "subjectAltName=IP:127.0.0.1"];
                ("127.0.0.1", &EXTENSIONS)
            }
        }
    }
}

/// A running server on the IPv4 and IPv6 loopback, without authentication.
pub struct Server {
    /// `None` while it is stopped.
    postmaster: Option<Guarded>,
    root: PathBuf,
    port: u16,
    /// `root`, if this server made it; deleted after the server has ended.
    _directory: Option<TempDir>,
}

impl Server {
    /// Makes a data directory below `root` and starts a test server on a free port.
    pub fn start(root: &Path) -> Result<Self> {
        Self::launch(root.to_owned(), None, free_port()?, Purpose::Tests)
    }

    /// Starts a server in a new directory, on port 5432 unless that is taken.
    pub fn alone(purpose: Purpose) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("pgsocktrace-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()?;
        let is_free = TcpListener::bind((Ipv4Addr::LOCALHOST, DEFAULT_PORT)).is_ok();
        let port = if is_free { DEFAULT_PORT } else { free_port()? };
        Self::launch(directory.path().to_owned(), Some(directory), port, purpose)
    }

    fn launch(
        root: PathBuf,
        directory: Option<TempDir>,
        port: u16,
        purpose: Purpose,
    ) -> Result<Self> {
        let data = root.join("data");
        match std::env::var_os(PREPARED) {
            Some(prepared) => {
                output(Command::new("cp").arg("-a").arg(prepared).arg(&data))?;
            }
            None => Self::prepare(&data, purpose)?,
        }
        let settings = format!(
            "port = {port}\n\
             listen_addresses = '127.0.0.1,::1'\n\
             unix_socket_directories = '{}'\n\
             fsync = off\n\
             {}",
            data.display(),
            purpose.settings()
        );
        fs::write(data.join("postgresql.auto.conf"), settings)?;
        let mut server = Self { postmaster: None, root, port, _directory: directory };
        server.resume()?;
        Ok(server)
    }

    /// Initialises a data directory.
    pub fn prepare(data: &Path, purpose: Purpose) -> Result<()> {
        let owner = Owner::find()?;
        fs::create_dir(data)?;
        owner.take(data)?;
        let mut initdb = Command::new(programs()?.join("initdb"));
        initdb.args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "-U", USER]);
        output(owner.runs(initdb.arg("-D").arg(data)))?;
        let (key, certificate) = (data.join("server.key"), data.join("server.crt"));
        let (name, extensions) = purpose.certificate();
        certificates::self_signed(&key, &certificate, name, extensions)?;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
        [key, certificate].iter().try_for_each(|file| owner.take(file))
    }

    /// Restarts the server after [`Self::stop`], with its data and the latest settings.
    pub fn resume(&mut self) -> Result<()> {
        let log = fs::File::create(self.root.join("server.log"))?;
        let mut command = Command::new(programs()?.join("postgres"));
        command.arg("-D").arg(self.data());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Owner::find()?.runs(&mut command);
        leftovers::mark(&mut command);
        // SIGQUIT, an immediate shutdown: this database needs no checkpoint.
        let postmaster = Guarded::spawn(&mut command, Signal::QUIT)?;
        self.postmaster = Some(postmaster);
        eventually("PostgreSQL accepts connections", || {
            if let Some(postmaster) = &mut self.postmaster {
                postmaster.ensure_running().with_context(|| {
                    fs::read_to_string(self.root.join("server.log")).unwrap_or_default()
                })?;
            }
            Ok(self.sql("SELECT 1").is_ok())
        })
    }

    /// Stops the server at once and drops all clients.
    pub fn stop(&mut self) {
        let Some(mut postmaster) = self.postmaster.take() else { return };
        postmaster.dismiss();
        // If it does not end in time, dropping it kills it.
        let _ = postmaster.wait(bound());
    }

    /// The server's data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// The server's certificate; tests use it as CA certificate, too.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.data().join("server.crt")
    }

    /// Requires a password over TCP, but not over the Unix socket.
    pub fn ask_for_passwords(&self) -> Result<()> {
        let rules = "local all all trust\nhost all all all scram-sha-256\n";
        fs::write(self.data().join("pg_hba.conf"), rules)?;
        self.sql("SELECT pg_reload_conf()")?;
        // The postmaster reloads its configuration asynchronously.
        eventually("the rules are read", || {
            let loaded = "SELECT pg_conf_load_time() > pg_postmaster_start_time() AND NOT EXISTS \
                          (SELECT FROM pg_hba_file_rules WHERE auth_method = 'trust' AND type = 'host')";
            Ok(self.sql(loaded)? == "t")
        })
    }

    /// The server's port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A connection string for drivers; the caller adds parameters.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/postgres", self.port)
    }

    /// One of PostgreSQL's own client programs, set up to connect to this server over TCP.
    pub fn client(&self, program: &str) -> Result<Command> {
        let mut command = Command::new(programs()?.join(program));
        command
            .current_dir("/")
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", USER)
            .env("PGDATABASE", "postgres")
            .stdin(Stdio::null());
        Ok(command)
    }

    /// Runs SQL over the Unix socket, which no tracer sees, and returns what `psql` printed.
    pub fn sql(&self, statement: &str) -> Result<String> {
        let mut psql = self.client("psql")?;
        psql.env("PGHOST", self.data());
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement]);
        Ok(output(&mut psql)?.trim().to_owned())
    }

    /// Runs an SQL file.
    pub fn load(&self, file: &Path) -> Result<()> {
        let statements = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        self.sql(&statements).map(drop)
    }

    /// Terminates a backend with `pg_terminate_backend`.
    pub fn terminate(&self, backend: u64) -> Result<()> {
        let answer = self.sql(&format!("SELECT pg_terminate_backend({backend}, 10000)"))?;
        ensure!(answer == "t", "backend {backend} was not terminated");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The directory of PostgreSQL's server programs.
pub fn programs() -> Result<PathBuf> {
    postgres::programs().context("PostgreSQL's server is not installed")
}

/// A loopback port that currently has no listener.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The user that runs PostgreSQL when the tests run as root, because PostgreSQL refuses root.
struct Owner(Option<(u32, u32)>);

impl Owner {
    fn find() -> Result<Self> {
        if !is_root() {
            return Ok(Self(None));
        }
        let users = fs::read_to_string("/etc/passwd")?;
        let ids = ids(&users, "postgres").context("there is no user postgres")?;
        Ok(Self(Some(ids)))
    }

    fn take(&self, path: &Path) -> Result<()> {
        let Some((user, group)) = self.0 else { return Ok(()) };
        Ok(chown(path, Some(user), Some(group))?)
    }

    fn runs<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        if let Some((user, group)) = self.0 {
            command.uid(user).gid(group);
        }
        command.current_dir("/").env("LC_ALL", "C")
    }
}

/// The user and group id of `name` in a file like /etc/passwd.
fn ids(users: &str, name: &str) -> Option<(u32, u32)> {
    let line = users.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let mut fields = line.split(':').skip(1);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::ids;

    #[test]
    fn finds_the_ids_of_a_user() {
        let users = "root:x:0:0::/root:/bin/sh\npostgres:x:101:104:,,,:/var:/bin/bash\n";
        assert_eq!(ids(users, "postgres"), Some((101, 104)));
        assert_eq!(ids("root:x:0:0::/root:/bin/sh\n", "postgres"), None);
        assert_eq!(ids("postgres:x:\n", "postgres"), None);
    }
}
