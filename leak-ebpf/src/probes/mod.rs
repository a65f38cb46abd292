//! Thin entries, one per hook and flavour: the flavours of a purpose share one body.
//!
//! Which flavour is attached is decided by the collector, by trial load. Flavour A is BTF
//! tracepoints, B fentry and fexit, C kprobes.

mod process;
mod receive;
mod send;
mod state;
