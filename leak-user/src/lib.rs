//! pgsocktrace.
pub mod detect;
pub mod event;
pub mod findings;
pub mod stacks;
pub mod table;
