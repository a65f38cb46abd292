//! The order services of languages with a runtime.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use support::command::succeeds;
use support::workspace::{node_path, root};

use crate::program::Program;
use crate::server::USER;
use crate::suite::{APPS, Suite};

/// Where Debian's jars are.
const JARS: &str = "/usr/share/java";
/// Those that the order service needs.
const CLASS_PATH: [&str; 4] = ["HikariCP.jar", "postgresql.jar", "slf4j-api.jar", "slf4j-nop.jar"];
/// A runtime, its driver, and what it was told to tell of the code that it compiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// Python with the driver of this name: psycopg, gevent (psycopg2), asyncpg, uvloop (asyncpg).
    Python(&'static str),
    /// Node.js with node-postgres.
    Node,
    /// The same, with a perf map that has interpreted functions, too.
    NodeMapped,
    /// Java with HikariCP and PostgreSQL's JDBC driver.
    Java,
    /// The same, without its compilers.
    JavaInterpreted,
    /// The same, keeping frame pointers, as a perf map needs them.
    JavaFramePointers,
    /// Ruby with pg.
    Ruby,
    /// PHP with this driver: pdo, pgsql.
    Php(&'static str),
    /// The same with PDO and opcache, whose compiler works so: off, function, tracing.
    PhpCompiled(&'static str),
}

impl Runtime {
    /// What `language` of its stacks is.
    #[must_use]
    pub fn language(self) -> &'static str {
        match self {
            Self::Python(_) => "python",
            Self::Node | Self::NodeMapped => "node",
            Self::Java | Self::JavaInterpreted | Self::JavaFramePointers => "java",
            Self::Ruby => "ruby",
            Self::Php(_) | Self::PhpCompiled(_) => "php",
        }
    }

    /// The file of `tests/apps/` that it runs.
    #[must_use]
    pub fn source(self) -> PathBuf {
        let file = match self {
            Self::Python(_) => "shop_drivers.py",
            Self::Node | Self::NodeMapped => "shop.js",
            Self::Java | Self::JavaInterpreted | Self::JavaFramePointers => "Shop.java",
            Self::Ruby => "shop.rb",
            Self::Php(_) | Self::PhpCompiled(_) => "shop.php",
        };
        Path::new(APPS).join("runtimes").join(file)
    }

    /// Starts it.
    pub fn start(self, suite: &Suite) -> Result<Program> {
        let mut command = self.interpreter();
        command.arg(self.source());
        match self {
            Self::Python(driver) | Self::Php(driver) => drop(command.arg(driver)),
            Self::PhpCompiled(_) => drop(command.arg("pdo")),
            _ => {}
        }
        command.args(["127.0.0.1", &suite.port().to_string(), USER]);
        // Where it may leave logs behind, as V8 does with a perf map.
        command.current_dir(suite.directory()?);
        Program::start(&mut command)
    }

    fn interpreter(self) -> Command {
        match self {
            Self::Python(_) => Command::new("/usr/bin/python3"),
            Self::Node | Self::NodeMapped => {
                let mut node = Command::new("node");
                node.env("NODE_PATH", node_path(root()));
                if self == Self::NodeMapped {
                    node.args(["--perf-basic-prof", "--interpreted-frames-native-stack"]);
                }
                node
            }
            Self::Java | Self::JavaInterpreted | Self::JavaFramePointers => {
                let mut java = Command::new("java");
                let jars = CLASS_PATH.map(|jar| format!("{JARS}/{jar}"));
                java.args(["-cp", &jars.join(":")]);
                match self {
                    Self::JavaFramePointers => {
                        java.args(["-XX:TieredStopAtLevel=1", "-XX:+PreserveFramePointer"]);
                    }
                    Self::JavaInterpreted => {
                        java.arg("-Xint");
                    }
                    _ => {}
                }
                java
            }
            Self::Ruby => Command::new("ruby"),
            Self::Php(_) => Command::new("php"),
            Self::PhpCompiled(mode) => {
                let mut php = Command::new("php");
                php.args(["-d", "opcache.enable_cli=1", "-d", "opcache.jit_buffer_size=16M"]);
                php.args(["-d", &format!("opcache.jit={mode}")]);
                // At once, so that no warm-up is needed.
                for threshold in ["hot_func", "hot_loop", "hot_return", "hot_side_exit"] {
                    php.args(["-d", &format!("opcache.jit_{threshold}=2")]);
                }
                php
            }
        }
    }

    /// Whether this machine has what it needs.
    pub(crate) fn is_there(self) -> bool {
        let check = match self {
            Self::Python("gevent") => ["-c", "import gevent, psycopg2"],
            Self::Python("uvloop") => ["-c", "import uvloop, asyncpg"],
            Self::Python("asyncpg") => ["-c", "import asyncpg"],
            Self::Python(_) => ["-c", "import psycopg"],
            Self::Node | Self::NodeMapped => ["-e", "require('pg')"],
            Self::Java | Self::JavaInterpreted | Self::JavaFramePointers => {
                ["--list-modules", "-version"]
            }
            Self::Ruby => ["-e", "require 'pg'"],
            Self::Php(_) => ["-r", "exit(extension_loaded('pdo_pgsql') ? 0 : 1);"],
            Self::PhpCompiled(_) => ["-r", "exit(extension_loaded('Zend OPcache') ? 0 : 1);"],
        };
        // A perf map, or a log of V8's, is not needed for this.
        let plain = if self == Self::NodeMapped { Self::Node } else { self };
        let mut command = plain.interpreter();
        let found = command.args(check).output().is_ok_and(|output| output.status.success());
        let is_java = self.language() == "java";
        let jars = || CLASS_PATH.iter().all(|jar| Path::new(JARS).join(jar).exists());
        found && (!is_java || (jars() && succeeds("jcmd", &["-h"])))
    }
}

/// Has a JVM write its perf map.
pub fn write_perf_map(jvm: &Program) -> Result<()> {
    let pid = jvm.pid().to_string();
    let mut jcmd = Command::new("jcmd");
    let output = crate::suite::finish(jcmd.args([pid.as_str(), "Compiler.perfmap"]))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.contains("successfully").then_some(()).with_context(|| format!("jcmd: {said}"))
}

/// The perf map of a process, removed when this is dropped: runtimes leave theirs behind.
pub struct PerfMapFile(PathBuf);

impl PerfMapFile {
    /// That of this process.
    #[must_use]
    pub fn of(program: &Program) -> Self {
        Self(PathBuf::from(format!("/tmp/perf-{}.map", program.pid())))
    }
}

impl Drop for PerfMapFile {
    fn drop(&mut self) {
        // Absent when the runtime wrote none.
        let _ = std::fs::remove_file(&self.0);
    }
}
