//! End-to-end tests of `pgsocktrace`: the real binary on the running kernel, against a PostgreSQL
//! that the tests start themselves.
//!
//! Each file of `tests/tests/` is a program with a `main` of its own. It lists its [`Test`]s and
//! hands them to [`run`], which starts one [`Server`] for all of them, runs them in parallel and
//! then makes sure that nothing is left behind: no process, no directory, no network namespace.
//!
//! A test reads like a story:
//!
//! ```no_run
//! # fn example(suite: &tests::Suite) -> anyhow::Result<()> {
//! let mut client = suite.client()?;
//! let trace = suite.trace().pid(client.pid()).start()?;
//!
//! let opened = client.ok(&format!("connect 4 {}", suite.port()))?;
//! client.ok("startup")?;
//!
//! let report = trace.stop()?;
//! let connection = report.connection(opened.number("cookie")?)?;
//! assert_eq!(connection.wire.state, "idle");
//! # Ok(())
//! # }
//! ```
//!
//! The tests need root, PostgreSQL's server, a C compiler and libpq's headers. A test whose
//! prerequisite is missing is reported as ignored, with the prerequisite's name in brackets.
//!
//! The client programs of `tests/apps/` are compiled when they are first asked for. They do one
//! step for each line on their stdin and answer with one line, so that no test depends on timing.
//!
//! `PGSOCKTRACE_BIN` names the binary; without it, it is `target/release/pgsocktrace` of this
//! workspace.

pub mod apps;
pub mod bpf;
mod cgroup;
pub mod cluster;
pub mod container;
pub mod corpus;
pub mod cost;
pub mod fake_server;
pub mod golang;
pub mod http;
pub mod leftovers;
pub mod mounts;
pub mod namespace;
pub mod native;
pub mod need;
pub mod process;
pub mod program;
pub mod prometheus;
pub mod report;
pub mod runtimes;
pub mod server;
pub mod shop;
pub mod suite;
pub mod thread;
pub mod trace;
pub mod vm;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};

pub use apps::Apps;
pub use container::{Container, User};
pub use corpus::{Member, Worker};
pub use fake_server::{FakeServer, Manner};
pub use namespace::Namespace;
pub use need::Need;
pub use process::{Running, bound, eventually};
pub use program::{Program, Reply};
pub use report::{Connection, Destination, Event, Finding, Report, Use};
pub use runtimes::Runtime;
pub use server::Server;
pub use shop::{Build, Shop};
pub use suite::{Suite, target};
pub use trace::{Outcome, Trace, TraceBuilder};

/// How many tests run at the same time: they mostly wait.
const PARALLEL: usize = 6;

type Body = Box<dyn Fn(&Suite) -> Result<()> + Send>;

/// One test.
pub struct Test {
    name: String,
    needs: Vec<Need>,
    body: Body,
}

/// A test of this name.
pub fn test(name: impl Into<String>, body: impl Fn(&Suite) -> Result<()> + Send + 'static) -> Test {
    Test { name: name.into(), needs: Vec::new(), body: Box::new(body) }
}

impl Test {
    /// The test is ignored where this is missing.
    #[must_use]
    pub fn needs(mut self, need: Need) -> Self {
        self.needs.push(need);
        self
    }

    fn into_trial(self, suite: Option<Arc<Suite>>) -> Trial {
        let missing = Need::ALWAYS.iter().chain(&self.needs).find(|need| !need.is_met());
        let body = self.body;
        let trial = Trial::test(self.name, move || {
            let suite = suite.ok_or("needs what the brackets name")?;
            body(&suite).map_err(|error| Failed::from(format!("{error:#}")))
        });
        match missing {
            Some(need) => trial.with_kind(format!("needs {need}")).with_ignored_flag(true),
            None => trial,
        }
    }
}

/// Runs the tests that the command line selects, and cleans up.
pub fn run(tests: Vec<Test>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(PARALLEL);

    let suite = if arguments.list || Need::ALWAYS.iter().any(|need| !need.is_met()) {
        None
    } else {
        match Suite::start() {
            Ok(suite) => Some(Arc::new(suite)),
            Err(error) => {
                eprintln!("error: {error:#}");
                return ExitCode::FAILURE;
            }
        }
    };
    let trials = tests.into_iter().map(|test| test.into_trial(suite.clone())).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);

    if let Some(suite) = suite {
        let cleaned = match Arc::try_unwrap(suite) {
            Ok(suite) => suite.stop(),
            Err(_) => Err(anyhow::anyhow!("a test is still running")),
        };
        if let Err(error) = cleaned {
            eprintln!("error: {error:#}");
            return ExitCode::FAILURE;
        }
    }
    conclusion.exit_code()
}
