//! pgsocktrace.

pub mod cli;
pub mod clock;
pub mod decode;
pub mod doctor;
pub mod error;
pub mod event;
pub mod inventory;
pub mod kernel;
pub mod process;
pub mod stacks;
pub mod startup;
pub mod table;
