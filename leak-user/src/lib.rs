//! pgsocktrace watches, from the kernel, every TCP connection that processes open to PostgreSQL, and
//! names the code that leaks them.
//!
//! This is the collector: a library and the binary `pgsocktrace`. The kernel tells when a connection
//! is opened, used and destroyed and by which code; the collector keeps one truthful table of
//! connections, and small, separate detectors judge it.
//!
//! # The way of an event
//!
//! ```text
//!                                                  ┌────────────────── engine ──────────────────┐
//! leak-ebpf ──ring buffer──▶ kernel ──▶ decode ──▶ │ table ──▶ detect ──▶ findings ──▶ report   │
//!     └──mapped arrays─────────┘                   └──▲────▲────────────────────────────────────┘
//!                                     inventory, server    stacks
//! ```
//!
//! 1. [`kernel`] loads the kernel programs, attaches for each purpose the best hook that this kernel
//!    accepts, and reads what they say: rare events through a ring buffer, counters
//!    of each connection in an array that both sides map, and its latest stack in a map.
//! 2. [`decode`] turns bytes into [`event::Event`]s, trusting none of them.
//! 3. [`table`] applies events. It is bounded and never forgets a silent connection.
//! 4. [`inventory`] lists, each interval, what exists according to the kernel and to procfs: the table
//!    is corrected by it, so that a lost event is healed.
//! 5. [`stacks`] turns registers and stack bytes into functions, files and lines, on a thread of its
//!    own, with the files that [`stacks`] opened when the process first appeared.
//! 6. [`server`] asks the servers that `--pg-dsn` names, on a thread of its own, for their sessions:
//!    the table matches them with its connections.
//! 7. [`kubernetes`] asks the API server or the node's kubelet, on a thread of its own, what the pods of
//!    the traced processes are called.
//! 8. [`detect`] judges the table, one file a reason; [`findings`] remembers what was found and what
//!    turned out not to be so.
//! 9. [`report`] prints it, [`metrics`] serves it to Prometheus, and [`flamegraph`] draws it.
//!
//! [`cost`] is what all of this takes of the machine, told in the report; [`memory`] keeps it from
//! growing for nothing.
//!
//! [`engine`] holds 3, 8 and 9 together: whoever drives it tells it facts, each with its moment.
//! [`recording`] keeps these facts, and [`replay`] tells them once more.
//!
//! Data goes one way. From [`event`] on, time is an argument: only [`pipeline`], which drives all of
//! this, and [`inventory`], which looks at the system, read the clock.

pub mod cli;
pub mod clock;
pub mod doctor;
pub mod engine;
pub mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod model;
pub mod outputs;
pub mod replay;
pub mod sources;
pub mod trace;
