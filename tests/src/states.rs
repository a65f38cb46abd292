//! The programs of `tests/apps/states/`: three sessions, of which one is in a transaction and one
//! in a failed transaction, and the word of the driver or, for Go, of the server on that.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::apps::APPS;
use crate::need::Need;
use crate::program::Program;
use crate::runtimes::Runtime;
use crate::server::USER;
use crate::suite::Suite;

/// Whose driver a program uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// libpq itself.
    Libpq,
    /// Python's psycopg2.
    Psycopg2,
    /// Python's psycopg 3.
    Psycopg,
    /// Ruby's pg.
    Ruby,
    /// PHP's pgsql.
    Php,
    /// Go's lib/pq.
    GoPq,
    /// Go's pgx, below `database/sql`.
    GoPgx,
}

impl Driver {
    /// Starts the program.
    pub fn start(self, suite: &Suite, sslmode: &str) -> Result<Program> {
        let mut command = match self {
            Self::Libpq => Command::new(suite.app_path("states")?),
            Self::Psycopg2 | Self::Psycopg => script("/usr/bin/python3", "states.py"),
            Self::Ruby => script("ruby", "states.rb"),
            Self::Php => script("php", "states.php"),
            Self::GoPq | Self::GoPgx => {
                Command::new(suite.apps().with_go_drivers("states-go", "states/states.go")?)
            }
        };
        match self {
            Self::Psycopg2 => command.arg("psycopg2"),
            Self::Psycopg => command.arg("psycopg"),
            Self::GoPq => command.arg("postgres"),
            Self::GoPgx => command.arg("pgx"),
            _ => &mut command,
        };
        command.args(["127.0.0.1", &suite.port().to_string(), USER, sslmode]);
        Program::start(&mut command)
    }

    /// What it needs of the machine.
    #[must_use]
    pub fn need(self) -> Need {
        match self {
            Self::Libpq => Need::Libpq,
            Self::Psycopg2 => Need::Psycopg2,
            Self::Psycopg => Need::Runtime(Runtime::Python("psycopg")),
            Self::Ruby => Need::Runtime(Runtime::Ruby),
            Self::Php => Need::Runtime(Runtime::Php("pgsql")),
            Self::GoPq | Self::GoPgx => Need::GoDrivers,
        }
    }
}

/// The states of a program's sessions by its own word, by local port.
pub fn states(program: &mut Program) -> Result<BTreeMap<u16, String>> {
    let reply = program.ok("states")?;
    let state = |(port, state): (&str, &str)| Ok((port.parse()?, state.to_owned()));
    reply.pairs().map(state).collect::<Result<_>>().with_context(|| format!("{reply:?}"))
}

fn script(interpreter: &str, file: &str) -> Command {
    let mut command = Command::new(interpreter);
    command.arg(Path::new(APPS).join("states").join(file));
    command
}
