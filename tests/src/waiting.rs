//! The programs of `tests/apps/waiting/`: pools of two connections, of which one may be lost, held
//! and waited for.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::apps::APPS;
use crate::program::Program;
use crate::runtimes::java;
use crate::server::USER;
use crate::suite::Suite;

/// A program of `tests/apps/waiting/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum App {
    /// HikariCP.
    Java,
    /// SQLAlchemy.
    Python,
    /// `database/sql`.
    Go,
}

impl App {
    /// Starts it.
    pub fn start(self, suite: &Suite) -> Result<Program> {
        let source = |name| Path::new(APPS).join("waiting").join(name);
        let mut command = match self {
            Self::Java => {
                let mut java = java();
                java.arg(source("Waiting.java"));
                java
            }
            Self::Python => {
                let mut python = Command::new("/usr/bin/python3");
                python.arg(source("waiting.py"));
                python
            }
            Self::Go => {
                Command::new(suite.apps().with_go_drivers("waiting", "waiting/waiting.go")?)
            }
        };
        command.args(["127.0.0.1", &suite.port().to_string(), USER]);
        Program::start(&mut command)
    }

    /// A function of the program as stacks name it.
    #[must_use]
    pub fn function(self, name: &str) -> String {
        match self {
            Self::Java => format!("Waiting.{name}"),
            Self::Python => name.to_owned(),
            Self::Go => format!("main.{name}"),
        }
    }
}
