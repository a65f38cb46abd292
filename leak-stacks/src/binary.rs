//! Binaries: their headers, their symbols, and the debug files that belong to them.

pub(crate) mod debug_file;
pub(crate) mod duplicates;
pub(crate) mod elf;
pub(crate) mod store;
pub(crate) mod symbols;
