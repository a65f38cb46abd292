//! Unwinding: from the registers and the copied bytes of a stack to the calls that led there.

pub(crate) mod cfi;
pub(crate) mod emulate;
pub(crate) mod missing_frames;
pub(crate) mod processor;
pub(crate) mod registers;
pub(crate) mod walk;
