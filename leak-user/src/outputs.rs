//! Telling people and programs what was found.
//!
//! Outputs see a [`Snapshot`](crate::engine::snapshot::Snapshot) and the
//! [changes](crate::engine::findings::Change) since the last one; they only differ in form.

pub mod flamegraph;
pub mod json;
pub mod ndjson;
pub mod prometheus;
pub mod recording;
#[cfg(test)]
pub(crate) mod testing;
pub mod text;
pub mod writer;
