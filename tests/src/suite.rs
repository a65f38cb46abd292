//! The resources that all tests of a suite share.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use support::workspace;
use tempfile::TempDir;

pub(crate) use crate::apps::APPS;
use crate::apps::Apps;
use crate::leftovers;
use crate::namespace::Namespace;
use crate::process::Running;
use crate::program::Program;
use crate::server::Server;
use crate::shop::{Build, Shop};
use crate::trace::TraceBuilder;

/// Evaluation interval of the traces.
pub const INTERVAL: Duration = Duration::from_millis(500);

/// A PostgreSQL server, the binary under test, and the client programs.
pub struct Suite {
    root: TempDir,
    server: Server,
    tool: PathBuf,
    apps: Apps,
    /// Locked while tables are created.
    tables: Mutex<()>,
}

impl Suite {
    pub(crate) fn start() -> Result<Self> {
        Self::start_with(&find_tool()?)
    }

    /// Starts a server, for tests of this binary.
    pub fn start_with(tool: &Path) -> Result<Self> {
        let tool = tool.to_owned();
        leftovers::sweep();
        let root = tempfile::Builder::new()
            .prefix(&format!("{}{}.", leftovers::DIRECTORY, std::process::id()))
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()?;
        let server = Server::start(root.path())?;
        let apps = Apps::new(root.path());
        Ok(Self { root, server, tool, apps, tables: Mutex::default() })
    }

    /// Stops the server.
    pub fn stop(self) -> Result<()> {
        let Self { root, server, .. } = self;
        drop(server);
        let checked = leftovers::check();
        let path = root.path().to_owned();
        root.close().with_context(|| format!("{} stays", path.display()))?;
        checked
    }

    /// The suite's PostgreSQL server.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The PostgreSQL server's port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// A new directory for a test's files, removed with the suite.
    pub fn directory(&self) -> Result<PathBuf> {
        let made = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in(self.root.path())?;
        Ok(made.keep())
    }

    /// The path of the binary under test.
    #[must_use]
    pub fn tool_path(&self) -> &Path {
        &self.tool
    }

    /// The binary under test, without options from the environment.
    #[must_use]
    pub fn tool(&self) -> Command {
        clean(Command::new(&self.tool))
    }

    /// Runs the binary with these arguments and waits until it ends.
    pub fn tool_says(&self, arguments: &[&str]) -> Result<Output> {
        finish(self.tool().args(arguments))
    }

    /// The binary under test, run by an unprivileged user from a directory that this user can read.
    pub fn tool_as_nobody(&self) -> Result<Command> {
        let copy = self.directory()?.join("pgsocktrace");
        fs::copy(&self.tool, &copy)?;
        let mut command = as_nobody();
        command.arg(copy);
        Ok(command)
    }

    /// A builder for a trace of connections to the server.
    #[must_use]
    pub fn trace(&self) -> TraceBuilder {
        TraceBuilder::new(self.tool(), self.port())
    }

    /// A builder for a trace with no option but the output format.
    #[must_use]
    pub fn trace_bare(&self) -> TraceBuilder {
        TraceBuilder::bare(self.tool())
    }

    /// A builder for a trace of connections to this port only.
    #[must_use]
    pub fn trace_port(&self, port: u16) -> TraceBuilder {
        TraceBuilder::new(self.tool(), port)
    }

    /// Starts the client program that sends and receives raw protocol messages.
    pub fn client(&self) -> Result<Program> {
        Program::start(&mut Command::new(self.client_path()?))
    }

    /// Like [`Self::client`], with another program name.
    pub fn client_named(&self, name: &str) -> Result<Program> {
        let copy = self.directory()?.join(name);
        fs::copy(self.client_path()?, &copy)?;
        Program::start(&mut Command::new(copy))
    }

    /// Like [`Self::client`], in another network namespace.
    pub fn client_in(&self, namespace: &Namespace) -> Result<Program> {
        let mut command = Command::new(self.client_path()?);
        namespace.adopt(&mut command)?;
        Program::start(&mut command)
    }

    /// Starts the order service, connected to the server without encryption.
    pub fn shop(&self, build: Build) -> Result<Shop> {
        Shop::start(self, build, &[])
    }

    /// The path of the compiled client program.
    pub fn client_path(&self) -> Result<PathBuf> {
        self.apps.client()
    }

    /// The path of the statically linked client program.
    pub fn static_client_path(&self) -> Result<PathBuf> {
        self.apps.static_client()
    }

    /// The path of the Go client, stripped and statically linked.
    pub fn go_client_path(&self) -> Result<PathBuf> {
        self.apps.go_client()
    }

    /// The path of the program compiled from `tests/apps/NAME.c`; it may use libpq and threads.
    pub fn app_path(&self, name: &str) -> Result<PathBuf> {
        self.apps.with_libpq(name)
    }

    /// Locked while tables are created: several tests may create the same ones.
    pub(crate) fn tables(&self) -> &Mutex<()> {
        &self.tables
    }

    /// The client programs.
    pub(crate) fn apps(&self) -> &Apps {
        &self.apps
    }
}

/// Cargo's target directory of the workspace.
#[must_use]
pub fn target() -> PathBuf {
    workspace::target_directory(workspace::root())
}

/// Removes the tracer's options from a command's environment.
pub(crate) fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PGSOCKTRACE_") {
            command.env_remove(name);
        }
    }
    command
}

/// A command that runs the program in its arguments as an unprivileged user, without options from
/// the environment.
#[must_use]
pub fn as_nobody() -> Command {
    let mut command = clean(Command::new("setpriv"));
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command
}

/// Runs a command and waits until it ends, with a timeout.
pub fn finish(command: &mut Command) -> Result<Output> {
    let mut running = Running::start(command)?;
    let status = running.wait()?;
    Ok(Output {
        status,
        stdout: running.stdout.to_end()?.into_bytes(),
        stderr: running.stderr.to_end()?.into_bytes(),
    })
}

fn find_tool() -> Result<PathBuf> {
    let path = workspace::binary(workspace::root());
    match path.canonicalize() {
        Ok(path) => Ok(path),
        Err(_) => bail!(
            "{} is missing: build it with `cargo xtask build`, or name it in PGSOCKTRACE_BIN",
            path.display()
        ),
    }
}
