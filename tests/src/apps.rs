//! The client programs of `tests/apps/`, compiled when they are first asked for.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, ensure};

/// The directory of the client programs' sources.
pub(crate) const APPS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/apps");

/// Environment variable: a directory of precompiled programs, for machines without a compiler.
pub const COMPILED: &str = "LEAK_TESTS_APPS";

/// Compiles client programs into one directory.
pub struct Apps {
    directory: PathBuf,
    compiled: Mutex<HashMap<String, PathBuf>>,
}

impl Apps {
    /// Compiles into this directory, on demand.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), compiled: Mutex::default() }
    }

    /// The client program that sends and receives raw protocol messages.
    pub fn client(&self) -> Result<PathBuf> {
        self.compiled("client", Self::compile_client())
    }

    /// The same client, statically linked.
    pub fn static_client(&self) -> Result<PathBuf> {
        let mut compile = Self::compile_client();
        compile.arg("-static");
        self.compiled("client-static", compile)
    }

    /// The Go client, stripped and statically linked.
    pub fn go_client(&self) -> Result<PathBuf> {
        let mut compile = Command::new("go");
        compile.env("CGO_ENABLED", "0").env("GO111MODULE", "off").env("GOCACHE", &self.directory);
        // `go build` takes `-o` before the source, so that `compiled` can append the source last.
        compile.args(["build", "-ldflags", "-s -w"]);
        self.compiled_from("client-go", compile, &[format!("{APPS}/client.go")])
    }

    /// The program made of a source below `tests/apps/`, in Go, with Debian's drivers.
    pub fn with_go_drivers(&self, name: &str, source: &str) -> Result<PathBuf> {
        let mut compile = Command::new("go");
        // Debian ships the packages as sources in a GOPATH: no modules, no downloads.
        compile.env("CGO_ENABLED", "0").env("GO111MODULE", "off").env("GOCACHE", &self.directory);
        compile.env("GOPATH", "/usr/share/gocode").arg("build");
        self.compiled_from(name, compile, &[format!("{APPS}/{source}")])
    }

    /// The program made of `tests/apps/NAME.c`; it may use libpq and threads.
    pub fn with_libpq(&self, name: &str) -> Result<PathBuf> {
        self.with_libpq_and(name, name, &["-g"])
    }

    /// The order service.
    pub fn shop(&self) -> Result<PathBuf> {
        self.with_libpq("shop")
    }

    /// Like [`Self::with_libpq`], with another file name and extra compiler options.
    pub(crate) fn with_libpq_and(
        &self,
        name: &str,
        source: &str,
        options: &[&str],
    ) -> Result<PathBuf> {
        let mut compile = Command::new("gcc");
        compile.args(["-O2", "-fomit-frame-pointer", "-I/usr/include/postgresql"]).args(options);
        compile.arg(format!("{APPS}/{source}.c")).args(["-lpq", "-pthread"]);
        self.compiled(name, compile)
    }

    fn compile_client() -> Command {
        let sources = ["client.c", "kin.c", "wire.c", "transfer.c", "uring.c"];
        let mut compile = Command::new("gcc");
        compile.args(["-O2", "-g"]).args(sources.map(|name| format!("{APPS}/client/{name}")));
        compile
    }

    /// Runs this compile command unless the program exists already, and returns the program's path.
    pub(crate) fn compiled(&self, name: &str, compile: Command) -> Result<PathBuf> {
        self.compiled_from(name, compile, &[])
    }

    /// Like [`Self::compiled`], for compilers that want the sources after all options.
    fn compiled_from(
        &self,
        name: &str,
        mut compile: Command,
        sources: &[String],
    ) -> Result<PathBuf> {
        if let Some(path) = ready_made(name) {
            return Ok(path);
        }
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = compiled.get(name) {
            return Ok(path.clone());
        }
        let path = self.directory.join(name);
        let output = compile.arg("-o").arg(&path).args(sources).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        compiled.insert(name.to_owned(), path.clone());
        Ok(path)
    }
}

/// The path of a precompiled program, where [`COMPILED`] is set.
fn ready_made(name: &str) -> Option<PathBuf> {
    let path = Path::new(&std::env::var_os(COMPILED)?).join(OsStr::new(name));
    path.exists().then_some(path)
}

/// Whether [`COMPILED`] is set.
pub(crate) fn are_ready_made() -> bool {
    std::env::var_os(COMPILED).is_some()
}
