//! What is particular to languages and their runtimes.

pub(crate) mod go;
pub(crate) mod perf_map;
pub(crate) mod python;
pub(crate) mod rust_async;
