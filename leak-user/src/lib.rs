//! pgsocktrace.
pub mod detect;
pub mod event;
pub mod stacks;
pub mod table;
