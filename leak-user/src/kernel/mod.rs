//! Everything that speaks with the kernel.

pub(crate) mod attach;
pub mod btf;
pub mod diag;
pub mod hooks;
mod load;
mod mapped;
pub(crate) mod obstacles;
mod records;
mod sampler;
mod slots;
mod statistics;
pub mod tracer;

pub use attach::Outcome;
pub use slots::Reading;
pub use statistics::ProgramRuns;
pub use tracer::{Counters, Settings, Tracer};
