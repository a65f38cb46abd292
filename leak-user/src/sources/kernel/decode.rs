//! Decodes what the kernel programs write into [`Event`](crate::model::Event)s.
//!
//! Nothing is trusted: lengths are checked, numbers are looked up, and strings end where their
//! buffer ends.

mod error;
mod fields;
pub(crate) mod postgres;
mod ring;
mod slots;
mod stacks;

pub use error::DecodeError;
pub use ring::{Decoded, event};
pub use slots::{slot, uses};
pub use stacks::raw_stack;

#[cfg(test)]
mod tests;
