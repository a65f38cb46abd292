//! Everything that talks to the kernel.

pub mod btf;
pub mod diag;
