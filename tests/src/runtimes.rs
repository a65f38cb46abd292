//! The order services in languages with a runtime.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use support::command::succeeds;
use support::python;
use support::workspace::{node_path, root};

use crate::program::Program;
use crate::server::USER;
use crate::suite::{APPS, Suite, target};

/// The directory of Debian's jars.
const JARS: &str = "/usr/share/java";
/// The jars that the order service needs.
const CLASS_PATH: [&str; 4] = ["HikariCP.jar", "postgresql.jar", "slf4j-api.jar", "slf4j-nop.jar"];
/// A runtime, its driver, and options for the names of compiled code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// Python with the driver of this name: psycopg, gevent (psycopg2), asyncpg, uvloop (asyncpg).
    Python(&'static str),
    /// Another release of Python, by its minor number, with psycopg.
    PythonRelease(u32),
    /// The same, running what it has compiled.
    PythonCompiled(u32),
    /// Node.js with node-postgres.
    Node,
    /// Like [`Self::Node`], with a perf map that includes interpreted functions.
    NodeMapped,
    /// Java with HikariCP and PostgreSQL's JDBC driver.
    Java,
    /// Like [`Self::Java`], without the JIT compilers.
    JavaInterpreted,
    /// Like [`Self::Java`], with frame pointers, which unwinding needs beside a perf map.
    JavaFramePointers,
    /// Ruby with pg.
    Ruby,
    /// The same, with all that is called compiled by YJIT.
    RubyCompiled,
    /// PHP with this driver: pdo, pgsql.
    Php(&'static str),
    /// The same with PDO and opcache, whose compiler works so: off, function, tracing.
    PhpCompiled(&'static str),
}

impl Runtime {
    /// The `language` of the runtime's stacks.
    #[must_use]
    pub fn language(self) -> &'static str {
        match self {
            Self::Python(_) | Self::PythonRelease(_) | Self::PythonCompiled(_) => "python",
            Self::Node | Self::NodeMapped => "node",
            Self::Java | Self::JavaInterpreted | Self::JavaFramePointers => "java",
            Self::Ruby | Self::RubyCompiled => "ruby",
            Self::Php(_) | Self::PhpCompiled(_) => "php",
        }
    }

    /// The file of `tests/apps/` that the runtime runs.
    #[must_use]
    pub fn source(self) -> PathBuf {
        let file = match self {
            Self::Python(_) | Self::PythonRelease(_) | Self::PythonCompiled(_) => "shop_drivers.py",
            Self::Node | Self::NodeMapped => "shop.js",
            Self::Java | Self::JavaInterpreted | Self::JavaFramePointers => "Shop.java",
            Self::Ruby | Self::RubyCompiled => "shop.rb",
            Self::Php(_) | Self::PhpCompiled(_) => "shop.php",
        };
        Path::new(APPS).join("runtimes").join(file)
    }

    /// Starts the order service.
    pub fn start(self, suite: &Suite) -> Result<Program> {
        let mut command = self.interpreter();
        command.arg(self.source());
        match self {
            Self::Python(driver) | Self::Php(driver) => {
                command.arg(driver);
            }
            Self::PythonRelease(_) | Self::PythonCompiled(_) => {
                command.arg("psycopg");
            }
            Self::PhpCompiled(_) => {
                command.arg("pdo");
            }
            _ => {}
        }
        command.args(["127.0.0.1", &suite.port().to_string(), USER]);
        // V8 writes a log to the current directory when it writes a perf map.
        command.current_dir(suite.directory()?);
        Program::start(&mut command)
    }

    fn interpreter(self) -> Command {
        match self {
            Self::Python(_) => Command::new("/usr/bin/python3"),
            Self::PythonRelease(minor) => python::command(&target(), minor),
            Self::PythonCompiled(minor) => {
                let mut python = python::command(&target(), minor);
                python.env("PYTHON_JIT", "1");
                python
            }
            Self::Node | Self::NodeMapped => {
                let mut node = Command::new("node");
                node.env("NODE_PATH", node_path(root()));
                if self == Self::NodeMapped {
                    node.args(["--perf-basic-prof", "--interpreted-frames-native-stack"]);
                }
                node
            }
            Self::Java | Self::JavaInterpreted | Self::JavaFramePointers => {
                let mut java = java();
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
            Self::RubyCompiled => {
                let mut ruby = Command::new("ruby");
                ruby.args(["--yjit", "--yjit-call-threshold=1"]);
                ruby
            }
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
    pub fn is_there(self) -> bool {
        let check = match self {
            Self::Python("gevent") => ["-c", "import gevent, psycopg2"],
            Self::Python("uvloop") => ["-c", "import uvloop, asyncpg"],
            Self::Python("asyncpg") => ["-c", "import asyncpg"],
            Self::PythonCompiled(_) => {
                ["-c", "import sys, psycopg; sys.exit(not sys._jit.is_enabled())"]
            }
            Self::Python(_) | Self::PythonRelease(_) => ["-c", "import psycopg"],
            Self::Node | Self::NodeMapped => ["-e", "require('pg')"],
            Self::Java | Self::JavaInterpreted | Self::JavaFramePointers => {
                ["--list-modules", "-version"]
            }
            Self::Ruby | Self::RubyCompiled => ["-e", "require 'pg'"],
            Self::Php(_) => ["-r", "exit(extension_loaded('pdo_pgsql') ? 0 : 1);"],
            Self::PhpCompiled(_) => ["-r", "exit(extension_loaded('Zend OPcache') ? 0 : 1);"],
        };
        // The check needs neither a perf map nor a log of V8.
        let plain = if self == Self::NodeMapped { Self::Node } else { self };
        let mut command = plain.interpreter();
        let found = command.args(check).output().is_ok_and(|output| output.status.success());
        let is_java = self.language() == "java";
        let jars = || CLASS_PATH.iter().all(|jar| Path::new(JARS).join(jar).exists());
        found && (!is_java || (jars() && succeeds("jcmd", &["-h"])))
    }
}

/// Java with the order service's jars.
pub(crate) fn java() -> Command {
    let mut java = Command::new("java");
    let jars = CLASS_PATH.map(|jar| format!("{JARS}/{jar}"));
    java.args(["-cp", &jars.join(":")]);
    java
}

/// Makes a JVM write its perf map.
pub fn write_perf_map(jvm: &Program) -> Result<()> {
    let pid = jvm.pid().to_string();
    let mut jcmd = Command::new("jcmd");
    let output = crate::suite::finish(jcmd.args([pid.as_str(), "Compiler.perfmap"]))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.contains("successfully").then_some(()).with_context(|| format!("jcmd: {said}"))
}

/// The perf map of a process, removed on drop: runtimes leave it behind.
pub struct PerfMapFile(PathBuf);

impl PerfMapFile {
    /// The perf map of this process.
    #[must_use]
    pub fn of(program: &Program) -> Self {
        Self(PathBuf::from(format!("/tmp/perf-{}.map", program.pid())))
    }
}

impl Drop for PerfMapFile {
    fn drop(&mut self) {
        // Fails if the runtime has not written a perf map.
        let _ = std::fs::remove_file(&self.0);
    }
}
