//! What `xtask`, `tests`, `bench` and the build script of `leak-user` share: the BPF toolchain,
//! paths of the workspace, running commands, and child processes that never outlive us.

#[cfg(feature = "commands")]
pub mod command;
#[cfg(feature = "commands")]
pub mod corpus;
#[cfg(feature = "commands")]
pub mod debian;
#[cfg(feature = "commands")]
pub mod postgres;
#[cfg(feature = "commands")]
pub mod process;
#[cfg(feature = "commands")]
pub mod python;
#[cfg(feature = "commands")]
pub mod results;
pub mod toolchain;
pub mod workspace;
