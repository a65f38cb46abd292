//! pgsocktrace.
pub mod detect;
pub mod event;
pub mod findings;
pub mod report;
pub mod stacks;
pub mod table;
