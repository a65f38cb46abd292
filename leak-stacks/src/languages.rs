//! Languages and their runtimes: how their frames are found, left and named.
//!
//! A language is a file or folder here and one line in [`registry`]. [`language`] says what it has
//! to tell; [`runtimes`] asks all of them.

pub(crate) mod call;
pub(crate) mod go;
pub(crate) mod jvm;
pub(crate) mod language;
pub(crate) mod perf_map;
pub(crate) mod php;
pub(crate) mod python;
mod recognised;
mod registry;
pub(crate) mod ruby;
pub(crate) mod runtimes;
mod rust_async;
pub(crate) mod target;
pub(crate) mod thread_index;
pub(crate) mod v8;
