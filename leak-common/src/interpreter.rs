//! Calls inside an interpreter: its native stack only shows the interpreter itself, so the kernel
//! programs also follow the chain of frames that it keeps in the process's memory.
//!
//! The types here are the same for all interpreters. Each kind of interpreter has a module with its
//! number and the meaning of its parameters.

pub mod cpython;
pub mod php;
pub mod ruby;

use bytemuck::{Pod, Zeroable};

use crate::size;

/// Most frames of an interpreter that are recorded of one stack.
pub const MAX_FRAMES: usize = 48;
/// How many parameters an interpreter's profile has.
pub const PARAMETERS: usize = 16;

/// No interpreter: [`InterpreterFrame::kind`] and [`InterpreterProfile::kind`].
pub const NONE: u32 = 0;

/// A call inside an interpreter.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, Default, PartialEq, Eq, Hash)]
pub struct InterpreterFrame {
    /// Address of the object that stands for the function or its code.
    pub pointer: u64,
    /// Position in that code, in the form in which the interpreter keeps it.
    pub position: u64,
    /// Tells whether `pointer` still means the same when it is read later; 0 where the interpreter
    /// has nothing of the sort.
    pub cookie: u32,
    /// Which interpreter, in the lowest byte: the `KIND` of one of the modules here, or [`NONE`].
    /// The rest is that module's.
    pub kind: u32,
}
size!(InterpreterFrame, 24);

/// How to find the calls of an interpreter in one process.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, Default, PartialEq, Eq, Hash)]
pub struct InterpreterProfile {
    /// Which interpreter the process runs: the `KIND` of one of the modules here, or [`NONE`].
    pub kind: u32,
    /// Tells this profile from others. Frames that were found with another process's profile mean
    /// nothing, however right they look.
    pub tag: u32,
    /// Their meaning depends on `kind`.
    pub parameters: [u32; PARAMETERS],
}
size!(InterpreterProfile, 72);
