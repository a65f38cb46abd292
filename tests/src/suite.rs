//! What the tests of one suite share.

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
    /// Held while tables are made.
    tables: Mutex<()>,
}

impl Suite {
    pub(crate) fn start() -> Result<Self> {
        Self::start_with(&find_tool()?)
    }

    /// Starts a server, to test this binary.
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

    /// The server.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The server's port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// A directory for files of the test's own, removed at the end.
    pub fn directory(&self) -> Result<PathBuf> {
        let made = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in(self.root.path())?;
        Ok(made.keep())
    }

    /// The binary under test.
    #[must_use]
    pub fn tool_path(&self) -> &Path {
        &self.tool
    }

    /// The binary under test, free of the environment's options.
    #[must_use]
    pub fn tool(&self) -> Command {
        clean(Command::new(&self.tool))
    }

    /// Runs the binary with these arguments to its end.
    pub fn tool_says(&self, arguments: &[&str]) -> Result<Output> {
        finish(self.tool().args(arguments))
    }

    /// The binary under test as a user without any privileges runs it, from a place that this user
    /// can reach.
    pub fn tool_as_nobody(&self) -> Result<Command> {
        let copy = self.directory()?.join("pgsocktrace");
        fs::copy(&self.tool, &copy)?;
        let mut command = as_nobody();
        command.arg(copy);
        Ok(command)
    }

    /// Begins to describe a trace of connections to the server.
    #[must_use]
    pub fn trace(&self) -> TraceBuilder {
        TraceBuilder::new(self.tool(), self.port())
    }

    /// Begins to describe a trace without any options but the output format.
    #[must_use]
    pub fn trace_bare(&self) -> TraceBuilder {
        TraceBuilder::bare(self.tool())
    }

    /// Begins to describe a trace of connections to this port alone.
    #[must_use]
    pub fn trace_port(&self, port: u16) -> TraceBuilder {
        TraceBuilder::new(self.tool(), port)
    }

    /// The client program that speaks the protocol by raw bytes.
    pub fn client(&self) -> Result<Program> {
        Program::start(&mut Command::new(self.client_path()?))
    }

    /// The same under a name of the test's own.
    pub fn client_named(&self, name: &str) -> Result<Program> {
        let copy = self.directory()?.join(name);
        fs::copy(self.client_path()?, &copy)?;
        Program::start(&mut Command::new(copy))
    }

    /// The same in another network namespace.
    pub fn client_in(&self, namespace: &Namespace) -> Result<Program> {
        let mut command = Command::new(self.client_path()?);
        namespace.adopt(&mut command)?;
        Program::start(&mut command)
    }

    /// The order service, connected to the server without encryption.
    pub fn shop(&self, build: Build) -> Result<Shop> {
        Shop::start(self, build, &[])
    }

    /// Where the compiled client program is.
    pub fn client_path(&self) -> Result<PathBuf> {
        self.apps.client()
    }

    /// The same without a need of any library.
    pub fn static_client_path(&self) -> Result<PathBuf> {
        self.apps.static_client()
    }

    /// The client program in Go, stripped; it needs no library.
    pub fn go_client_path(&self) -> Result<PathBuf> {
        self.apps.go_client()
    }

    /// Where the program made of `tests/apps/NAME.c` is; it may use libpq and threads.
    pub fn app_path(&self, name: &str) -> Result<PathBuf> {
        self.apps.with_libpq(name)
    }

    /// Held while tables are made, which several tests may want at once.
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

/// Takes the environment's options away from a command.
pub(crate) fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PGSOCKTRACE_") {
            command.env_remove(name);
        }
    }
    command
}

/// What runs the program that is added to its arguments as a user without any privileges, free of
/// the environment's options.
#[must_use]
pub fn as_nobody() -> Command {
    let mut command = clean(Command::new("setpriv"));
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command
}

/// Runs a command to its end, with a bound.
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
