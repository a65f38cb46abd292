//! End-to-end tests of `pgsocktrace`: the real binary on the running kernel, against a PostgreSQL
//! that the tests start themselves.
//!
//! The library is the harness: PostgreSQL, processes, certificates, namespaces, containers, virtual
//! machines. `bench` uses it, too. The tests are one program, `e2e`: each file of `tests/e2e/` is a
//! suite, a list of [`Test`]s. [`suites::run`] starts one [`Server`] for a suite, runs its tests in
//! parallel and then makes sure that nothing is left behind: no process, no directory, no network
//! namespace.
//!
//! A test reads like a story:
//!
//! ```no_run
//! # fn example(suite: &harness::Suite) -> anyhow::Result<()> {
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

#![allow(missing_docs, reason = "code for tests, whose names say what they do")]

pub mod apps;
pub mod bpf;
pub(crate) mod certificates;
mod cgroup;
pub mod cluster;
pub mod container;
pub mod corpus;
pub mod cost;
pub mod demo;
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
pub mod readiness;
pub mod report;
pub mod runtimes;
pub mod server;
pub mod shop;
pub mod states;
pub mod suite;
pub mod suites;
pub mod thread;
pub mod trace;
pub mod vm;
pub mod waiting;

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
pub use suites::{Test, test};
pub use trace::{Outcome, Trace, TraceBuilder};
