//! Unwinding: from the registers and the copied bytes of a stack to its frames.

pub(crate) mod cfi;
pub(crate) mod emulate;
pub(crate) mod missing_frames;
pub(crate) mod registers;
pub(crate) mod rules;
pub(crate) mod step;
pub(crate) mod walk;
