//! Thin entries, one for each hook: those of one purpose share a body.
//!
//! The collector finds out by trial which of them this kernel can load: BTF tracepoints, else fexit
//! programs, else kprobes.

mod close;
mod connect;
mod ended;
mod fork;
mod receive;
mod send;
