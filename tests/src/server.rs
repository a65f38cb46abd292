//! A PostgreSQL server of the tests' own, thrown away with its data.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::leftovers;
use crate::process::{die_with_parent, eventually};

/// Names a data directory made elsewhere by [`Server::prepare`], to start servers on copies of it.
pub const PREPARED: &str = "LEAK_TESTS_DATA";

/// The database superuser and the only user.
pub const USER: &str = "postgres";

/// Where the newest installed PostgreSQL keeps its programs.
#[must_use]
pub fn find_binaries() -> Option<PathBuf> {
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join("bin/postgres").exists())
        .max_by_key(|path| version(path))
        .map(|path| path.join("bin"))
}

/// A running server, on IPv4's and IPv6's loopback, that trusts everyone and can do TLS.
pub struct Server {
    /// `None` while it is stopped.
    postmaster: Option<Child>,
    root: PathBuf,
    port: u16,
}

impl Server {
    /// Makes a data directory below `root` and starts a server on it.
    ///
    /// # Errors
    ///
    /// When PostgreSQL's programs are missing or fail; the message holds what they said.
    pub fn start(root: &Path) -> Result<Self> {
        let data = root.join("data");
        match std::env::var_os(PREPARED) {
            Some(prepared) => {
                run(Command::new("cp").arg("-a").arg(prepared).arg(&data))?;
            }
            None => Self::prepare(&data)?,
        }

        let port = free_port()?;
        fs::write(data.join("postgresql.auto.conf"), settings(&data, port))?;
        let mut server = Self { postmaster: None, root: root.to_owned(), port };
        server.resume()?;
        Ok(server)
    }

    /// Makes a data directory.
    ///
    /// # Errors
    ///
    /// When PostgreSQL's programs are missing or fail; the message holds what they said.
    pub fn prepare(data: &Path) -> Result<()> {
        let binaries = find_binaries().context("PostgreSQL's server is not installed")?;
        let owner = Owner::find("postgres")?;
        fs::create_dir(data)?;
        chown(data, Some(owner.uid), Some(owner.gid))?;
        let mut initdb = Command::new(binaries.join("initdb"));
        initdb.args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "-U", USER]);
        run(owner.of(initdb.arg("-D").arg(data)))?;
        make_certificate(data, &owner)
    }

    /// Starts it again after [`Self::stop`], with its data and the settings made since.
    ///
    /// # Errors
    ///
    /// When it does not come up; the message holds its log.
    pub fn resume(&mut self) -> Result<()> {
        let binaries = find_binaries().context("PostgreSQL's server is not installed")?;
        let owner = Owner::find("postgres")?;
        let log = fs::File::create(self.root.join("server.log"))?;
        let mut postgres = Command::new(binaries.join("postgres"));
        postgres.arg("-D").arg(self.data());
        postgres.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        owner.of(&mut postgres);
        leftovers::mark(&mut postgres);
        // An immediate shutdown: nothing in this database is worth a checkpoint.
        die_with_parent(&mut postgres, libc::SIGQUIT);
        let postmaster = postgres.spawn().context("PostgreSQL cannot be started")?;
        self.postmaster = Some(postmaster);
        eventually("PostgreSQL accepts connections", || {
            let ended = self.postmaster.as_mut().and_then(|child| child.try_wait().transpose());
            if let Some(status) = ended.transpose()? {
                let log = fs::read_to_string(self.root.join("server.log")).unwrap_or_default();
                bail!("PostgreSQL ended with {status}:\n{log}");
            }
            Ok(self.sql("SELECT 1").is_ok())
        })
    }

    /// Stops it at once, whoever is connected.
    pub fn stop(&mut self) {
        let Some(mut postmaster) = self.postmaster.take() else { return };
        // SAFETY: the child has not been waited for, so its PID is still its own.
        unsafe { libc::kill(postmaster.id().cast_signed(), libc::SIGQUIT) };
        if eventually("PostgreSQL ends", || Ok(postmaster.try_wait()?.is_some())).is_err() {
            let _ = postmaster.kill();
            let _ = postmaster.wait();
        }
    }

    /// Its data directory, with its certificate in `server.crt`.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// Lets users in over TCP only with their password; over the Unix socket, as ever.
    ///
    /// # Errors
    ///
    /// When the configuration cannot be written or read.
    pub fn ask_for_passwords(&self) -> Result<()> {
        let rules = "local all all trust\nhost all all all scram-sha-256\n";
        fs::write(self.data().join("pg_hba.conf"), rules)?;
        self.sql("SELECT pg_reload_conf()")?;
        // The postmaster reads it in its own time.
        eventually("the rules are read", || {
            let loaded = "SELECT pg_conf_load_time() > pg_postmaster_start_time() AND NOT EXISTS \
                          (SELECT FROM pg_hba_file_rules WHERE auth_method = 'trust' AND type = 'host')";
            Ok(self.sql(loaded)? == "t")
        })
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs SQL over the Unix socket, unseen by any tracer, and returns what `psql` printed.
    ///
    /// # Errors
    ///
    /// When the statement fails.
    pub fn sql(&self, statement: &str) -> Result<String> {
        let mut psql = Command::new("psql");
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", USER, "-d", "postgres", "-h"])
            .arg(self.data())
            .args(["-p", &self.port.to_string(), "-c", statement]);
        Ok(run(&mut psql)?.trim().to_owned())
    }

    /// Ends a backend, as an administrator would.
    ///
    /// # Errors
    ///
    /// When there is no such backend.
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

/// A port of the loopback that nobody listens on at the moment.
///
/// # Errors
///
/// When there is none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn settings(data: &Path, port: u16) -> String {
    format!(
        "port = {port}\n\
         listen_addresses = '127.0.0.1,::1'\n\
         unix_socket_directories = '{}'\n\
         max_connections = 700\n\
         shared_buffers = 16MB\n\
         fsync = off\n\
         full_page_writes = off\n\
         autovacuum = off\n\
         ssl = on\n\
         log_min_messages = warning\n",
        data.display()
    )
}

fn make_certificate(data: &Path, owner: &Owner) -> Result<()> {
    let (key, certificate) = (data.join("server.key"), data.join("server.crt"));
    run(Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-days", "2", "-subj", "/CN=localhost", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate))?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    for file in [key, certificate] {
        chown(file, Some(owner.uid), Some(owner.gid))?;
    }
    Ok(())
}

/// The user that PostgreSQL runs as: it refuses to run as root.
struct Owner {
    uid: u32,
    gid: u32,
}

impl Owner {
    fn find(name: &str) -> Result<Self> {
        let users = fs::read_to_string("/etc/passwd")?;
        let fields = users
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields.first() == Some(&name))
            .with_context(|| format!("there is no user {name}"))?;
        let number = |field: usize| -> Result<u32> {
            Ok(fields.get(field).context("/etc/passwd is broken")?.parse()?)
        };
        Ok(Self { uid: number(2)?, gid: number(3)? })
    }

    fn of<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.uid(self.uid).gid(self.gid).current_dir("/").env("LC_ALL", "C")
    }
}

/// Runs a command to its end and returns its stdout.
fn run(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{} cannot be started", command.get_program().display()))?;
    ensure!(
        status.success(),
        "{} failed: {}",
        command.get_program().display(),
        String::from_utf8_lossy(&stderr).trim()
    );
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}
