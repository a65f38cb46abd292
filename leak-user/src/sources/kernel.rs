//! The kernel as a source: loads the kernel programs, attaches them, reads and decodes what they
//! write.

mod attach;
pub mod btf;
pub(crate) mod capabilities;
pub mod decode;
mod error;
pub mod hooks;
mod load;
mod mapped_slots;
pub(crate) mod obstacles;
mod pid_namespace;
mod plain;
mod profile;
mod records;
mod sampler;
mod settings;
mod slots;
mod statistics;
mod tracer;

pub use attach::HookOutcome;
pub use error::KernelError;
pub use pid_namespace::check_pid_namespace;
pub use settings::TracerSettings;
pub use slots::Reading;
pub use tracer::{Counters, Tracer};
