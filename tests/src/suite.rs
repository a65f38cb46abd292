//! What the tests of one target share.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::leftovers;
use crate::namespace::Namespace;
use crate::process::Running;
use crate::program::Program;
use crate::server::Server;
use crate::shop::{Build, Shop};
use crate::trace::TraceBuilder;

/// Where the client programs' sources are.
pub(crate) const APPS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/apps");

/// Evaluation interval of the traces.
pub const INTERVAL: Duration = Duration::from_millis(500);

/// A PostgreSQL server, the binary under test, and the client programs.
pub struct Suite {
    root: TempDir,
    server: Server,
    tool: PathBuf,
    compiled: Mutex<HashMap<String, PathBuf>>,
}

impl Suite {
    pub(crate) fn start() -> Result<Self> {
        let tool = find_tool()?;
        leftovers::sweep();
        let root = tempfile::Builder::new()
            .prefix(&format!("{}{}.", leftovers::DIRECTORY, std::process::id()))
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()?;
        let server = Server::start(root.path())?;
        Ok(Self { root, server, tool, compiled: Mutex::default() })
    }

    pub(crate) fn stop(self) -> Result<()> {
        let Self { root, server, tool: _, compiled: _ } = self;
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
    ///
    /// # Errors
    ///
    /// When it cannot be made.
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
    ///
    /// # Errors
    ///
    /// When it cannot be started or does not end.
    pub fn tool_says(&self, arguments: &[&str]) -> Result<Output> {
        finish(self.tool().args(arguments))
    }

    /// The binary under test as a user without any privileges runs it, from a place that this user can
    /// reach.
    ///
    /// # Errors
    ///
    /// When it cannot be copied there.
    pub fn tool_as_nobody(&self) -> Result<Command> {
        let copy = self.directory()?.join("pgsocktrace");
        fs::copy(&self.tool, &copy)?;
        let mut command = clean(Command::new("setpriv"));
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(copy);
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
    ///
    /// # Errors
    ///
    /// When it cannot be compiled or started.
    pub fn client(&self) -> Result<Program> {
        Program::start(&mut Command::new(self.client_path()?))
    }

    /// The same under a name of the test's own.
    ///
    /// # Errors
    ///
    /// When it cannot be compiled or started.
    pub fn client_named(&self, name: &str) -> Result<Program> {
        let copy = self.directory()?.join(name);
        fs::copy(self.client_path()?, &copy)?;
        Program::start(&mut Command::new(copy))
    }

    /// The same in another network namespace.
    ///
    /// # Errors
    ///
    /// When it cannot be compiled or started.
    pub fn client_in(&self, namespace: &Namespace) -> Result<Program> {
        let mut command = Command::new(self.client_path()?);
        namespace.adopt(&mut command)?;
        Program::start(&mut command)
    }

    /// The order service, connected to the server without encryption.
    ///
    /// # Errors
    ///
    /// When it cannot be compiled or started.
    pub fn shop(&self, build: Build) -> Result<Shop> {
        Shop::start(self, build, &[])
    }

    /// Where the compiled client program is.
    ///
    /// # Errors
    ///
    /// When it cannot be compiled.
    pub fn client_path(&self) -> Result<PathBuf> {
        let sources = ["client.c", "kin.c", "wire.c", "transfer.c", "uring.c"];
        let mut compile = Command::new("gcc");
        compile.args(["-O2", "-g"]).args(sources.map(|name| format!("{APPS}/client/{name}")));
        self.compiled("client", compile)
    }

    /// The output of this compile command under this name, made once.
    pub(crate) fn compiled(&self, name: &str, mut compile: Command) -> Result<PathBuf> {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = compiled.get(name) {
            return Ok(path.clone());
        }
        let path = self.root.path().join(name);
        let output = compile.arg("-o").arg(&path).output().context("gcc")?;
        ensure!(output.status.success(), "gcc: {}", String::from_utf8_lossy(&output.stderr));
        compiled.insert(name.to_owned(), path.clone());
        Ok(path)
    }
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

/// Runs a command to its end, with a bound.
///
/// # Errors
///
/// When it cannot be started or does not end.
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
    let path = match std::env::var_os("PGSOCKTRACE_BIN") {
        Some(path) => PathBuf::from(path),
        None => {
            let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
            tests.parent().unwrap_or(tests).join("target/release/pgsocktrace")
        }
    };
    match path.canonicalize() {
        Ok(path) => Ok(path),
        Err(_) => bail!(
            "{} is missing: build it with `cargo xtask build`, or name it in PGSOCKTRACE_BIN",
            path.display()
        ),
    }
}
