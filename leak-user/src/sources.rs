//! Where facts come from: the kernel, procfs, PostgreSQL servers and Kubernetes.
//!
//! Sources make facts of what others say, trusting none of it. They know the [model](crate::model), and
//! never the engine.

pub mod inventory;
pub mod kernel;
pub mod kubernetes;
pub mod postgres;
pub mod procfs;
