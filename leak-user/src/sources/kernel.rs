//! Everything that speaks with the kernel.

pub(crate) mod attach;
pub mod btf;
pub mod decode;
pub mod hooks;
mod load;
mod mapped;
pub(crate) mod obstacles;
mod profile;
mod records;
mod sampler;
mod slots;
pub mod startup;
mod statistics;
pub mod tracer;

pub use attach::Outcome;
pub use slots::Reading;
pub use statistics::ProgramRuns;
pub use tracer::{Counters, Settings, Tracer};
