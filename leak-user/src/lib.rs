//! pgsocktrace.
pub mod event;
pub mod stacks;
