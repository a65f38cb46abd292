//! pgsocktrace.
pub mod event;
pub mod inventory;
pub mod kernel;
pub mod process;
pub mod stacks;
