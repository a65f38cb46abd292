//! Programs of `tests/apps/corpus`, leaking and healthy. `cargo xtask bench detect` runs all of
//! them.

use std::path::Path;
use std::process::Command;
use std::sync::PoisonError;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::process::{Running, Signal, bound};
use crate::server::USER;
use crate::suite::{APPS, Suite, target};

/// A port without a listener. Only patterns that no test uses connect to it.
const NOWHERE: &str = "1";

/// The Go build cache below the target directory, shared with `cargo xtask bench detect`.
const GO_CACHE: &str = "corpus/go-cache";

/// A program of the corpus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// Go's database/sql with lib/pq.
    GoPq,
    /// C with libpq.
    Libpq,
    /// Python with psycopg2.
    Psycopg2,
}

/// A running program of the corpus.
pub struct Worker {
    running: Running,
}

impl Member {
    /// Starts the program. It serves requests, and waits for [`Worker::begin`] to run its pattern.
    pub fn start(self, suite: &Suite, pattern: &str, sslmode: &str) -> Result<Worker> {
        load(suite)?;
        let mut command = self.command(suite)?;
        command
            .arg(pattern)
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", suite.port().to_string())
            .env("PGUSER", USER)
            .env("PGDATABASE", "postgres")
            .env("PGSSLMODE", sslmode)
            .env("PGAPPNAME", "corpus")
            .env("CORPUS_DRIVER", "postgres")
            .env("CORPUS_POOL", "55")
            .env("CORPUS_EVERY", "900")
            .env("CORPUS_LOAD", "60")
            .env("CORPUS_HOLE", NOWHERE);
        let running = Running::start(&mut command)?;
        let ready = |line: &str| (line == "ready").then_some(());
        let said = running.stdout.find_from(0, Instant::now() + bound(), ready);
        said.with_context(|| format!("{self:?} does not begin: {:?}", running.stderr.all()))?;
        Ok(Worker { running })
    }

    fn command(self, suite: &Suite) -> Result<Command> {
        let path = match self {
            Self::GoPq => {
                let mut build = Command::new("go");
                build
                    .arg("build")
                    .current_dir(format!("{APPS}/corpus/go/sql"))
                    // Debian ships the packages as sources in a GOPATH: no modules, no downloads.
                    .env("GO111MODULE", "off")
                    .env("GOPATH", "/usr/share/gocode")
                    .env("GOFLAGS", "")
                    .env("GOCACHE", target().join(GO_CACHE));
                suite.apps().compiled("corpus-go", build)?
            }
            Self::Libpq => {
                let mut build = Command::new("gcc");
                build.args(["-O2", "-g", "-pthread", "-I/usr/include/postgresql"]);
                build.args([&format!("{APPS}/corpus/c/shop.c"), "-lpq"]);
                suite.apps().compiled("corpus-c", build)?
            }
            Self::Psycopg2 => {
                let mut command = Command::new("/usr/bin/python3");
                command.arg(format!("{APPS}/corpus/python/psycopg2_shop.py"));
                return Ok(command);
            }
        };
        Ok(Command::new(path))
    }
}

impl Worker {
    /// The program's PID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Lets the program run its pattern.
    pub fn begin(&mut self) -> Result<()> {
        self.running.say("go")
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    /// The local ports of the connections that the program has leaked so far.
    #[must_use]
    pub fn lost(&self) -> Vec<u16> {
        let port = |line: &String| line.strip_prefix("leak ")?.split(' ').nth(1)?.parse().ok();
        self.running.stdout.all().iter().filter_map(port).collect()
    }
}

/// Creates the programs' tables, once per server.
fn load(suite: &Suite) -> Result<()> {
    let _one_at_a_time = suite.tables().lock().unwrap_or_else(PoisonError::into_inner);
    let server = suite.server();
    if server.sql("SELECT to_regclass('orders') IS NULL")? == "t" {
        server.load(&Path::new(APPS).join("corpus/schema.sql"))?;
        // Counted only here, right after loading: the programs add orders.
        let count = server.sql("SELECT count(*) FROM orders")?;
        ensure!(count == "500", "the tables hold {count} orders");
    }
    Ok(())
}
