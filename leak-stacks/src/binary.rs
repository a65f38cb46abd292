//! Binaries: their headers, their symbols, and the debug files that belong to them.

pub(crate) mod debug_file;
pub(crate) mod duplicates;
pub(crate) mod elf;
pub(crate) mod facts;
pub(crate) mod modules;
pub(crate) mod references;
pub(crate) mod relocations;
pub(crate) mod store;
pub(crate) mod symbol_table;
pub(crate) mod symbols;
pub(crate) mod window;
