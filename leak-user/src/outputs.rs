//! Telling people and programs what was found.
//!
//! Each output is a [`Sink`]: it sees facts as they become known, and after each judgement a
//! [`Snapshot`](crate::engine::snapshot::Snapshot) with the
//! [changes](crate::engine::findings::Change) since the last one. A live trace and a replay feed
//! the same sinks.
//!
//! A new output is one file or folder here, and one line in [`Sinks::open`].

pub mod ci;
pub mod flamegraph;
pub mod json;
mod learnt;
pub mod ndjson;
mod printer;
pub mod prometheus;
pub mod recording;
mod settings;
mod sink;
mod sinks;
#[cfg(test)]
pub(crate) mod testing;
pub mod text;
mod whole_file;

pub use learnt::{LearntError, read_learnt};
pub use settings::{FlamegraphSettings, Format, MetricsSettings, OutputSettings, PrintTo, Printed};
pub use sink::{OutputError, Sink};
pub use sinks::{Printing, Sinks};
