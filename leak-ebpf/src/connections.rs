//! The table of connections: from a socket to its slot, and what is kept with it.

pub(crate) mod handles;
pub(crate) mod records;
pub(crate) mod slots;
pub(crate) mod transfers;
pub(crate) mod uses;
