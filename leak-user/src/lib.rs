//! pgsocktrace.
pub mod event;
pub mod stacks;
pub mod table;
