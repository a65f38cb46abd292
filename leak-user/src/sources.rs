//! Where facts come from: the kernel, procfs, PostgreSQL servers and Kubernetes.
//!
//! A source turns untrusted input into types of the [model](crate::model). It never imports the
//! engine, the outputs or the trace.

pub mod drivers;
pub mod elsewhere;
pub mod inventory;
pub mod kernel;
pub mod kubernetes;
pub mod pools;
pub mod postgres;
pub mod procfs;
