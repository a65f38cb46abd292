//! pgsocktrace watches, from the kernel, every TCP connection that processes open to PostgreSQL,
//! and names the code that leaks them.
//!
//! This is the collector: a library and the binary `pgsocktrace`. The kernel tells when a
//! connection is opened, used and destroyed and by which code; the collector keeps one truthful
//! table of connections, and small, separate detectors judge it.
//!
//! # The flow, with its way back
//!
//! ```text
//! leak-ebpf ─ring, arrays─▶ sources/kernel ──┐
//!   procfs, sock_diag ─▶ sources/inventory ──┤         ┌──────── engine ────────┐
//! PostgreSQL sessions ─▶ sources/postgres ───┼─ Fact ─▶│ table ─▶ detect        │─▶ Snapshot,
//!      Kubernetes API ─▶ sources/kubernetes ─┤ (tell)  │       ─▶ findings      │   Change
//!   copies of stacks ──▶ leak-stacks ────────┘         └───────────┬────────────┘   ─▶ outputs/*
//!                               ▲                                  │
//!                               └───────── trace/feedback ◀────────┘
//! ```
//!
//! A [`model::Fact`] is the only thing that the engine can be told, and [`trace::Session::tell`]
//! the only way to tell it. From there on data goes one way, and time is an argument. What must go
//! back has its name in `trace/feedback`: how to copy a process's stacks, which connections' stacks
//! to fetch, which processes to forget, which addresses to name. `--record` keeps what goes through
//! the door; [`replay`] tells it once more, to the same engine and the same outputs.
//!
//! # The rooms
//!
//! | room | holds | may use |
//! |---|---|---|
//! | [`model`] | facts and the words for them: plain data, without input, output or a clock | nothing |
//! | [`engine`] | the table of connections, the detectors that judge it, and their findings | model |
//! | `sources` | whatever makes facts: the kernel programs, sock_diag and procfs, PostgreSQL, Kubernetes | model |
//! | [`outputs`] | whatever shows findings: text, JSON, NDJSON, metrics, flame graph, recording | model, engine |
//! | [`trace`] | the event loop, which knows both sides, and the way back | all of these |
//! | [`cli`], [`demo`], [`doctor`], [`ls`], [`replay`], `main` | commands and their options | all of these |
//!
//! Beside them stand `clock`, which reads the clocks, `nearest`, which guesses what was meant,
//! `background`, which runs threads that must not keep the event loop waiting, and `error`.
//! Resolving stacks is a crate of its own, [`leak_stacks`]. The tests of the crate `structure`
//! check that no import climbs and that no files import each other in a circle.
//!
//! # Where something new belongs
//!
//! - A way to learn about connections: a folder in `sources` that makes facts, a turn in
//!   `trace/schedule`, and a line in [`trace()`](trace::trace).
//! - A reason to report a connection: a file in [`engine::detect`].
//! - A form of output: a file or folder in [`outputs`] with an [`outputs::Sink`], a line in
//!   [`outputs::Sinks::open`], and its option in [`cli`].
//! - Something that a source should do because of what was found: a function in `trace/feedback`.
//! - A figure about the tracer itself: a field of [`model::Health`].

mod background;
pub mod cli;
mod clock;
pub mod demo;
pub mod doctor;
pub mod engine;
pub mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod ls;
pub mod model;
pub mod nearest;
pub mod outputs;
pub mod replay;
#[expect(unreachable_pub, reason = "what is `pub` in a source is what the trace may use of it")]
mod sources;
pub mod trace;
