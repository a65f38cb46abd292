//! User stacks: registers, bytes and the frames of interpreters, copied into an event or into the
//! flight recorder.

mod budget;
mod copy;
mod interpreter;

pub(crate) use self::copy::{at_connect, record};
