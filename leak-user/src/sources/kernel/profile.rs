//! What was learnt about a process, in the form that the kernel programs read.

use leak_common::interpreter::InterpreterProfile;
use leak_common::stack::{MAX_STACK, SHORT_STACK, StackProfile};
use leak_stacks::CopyLength;

/// A process's profile for the kernel programs.
pub(super) fn for_kernel(profile: leak_stacks::StackProfile) -> StackProfile {
    let stack_bytes = match profile.copy_length {
        CopyLength::Usual => 0,
        CopyLength::Generous => SHORT_STACK,
        CopyLength::Most => MAX_STACK,
    };
    let interpreter = profile.interpreter.map(|interpreter| {
        let leak_stacks::InterpreterProfile { kind, tag, parameters } = interpreter;
        InterpreterProfile { kind, tag, parameters }
    });
    StackProfile {
        stack_bytes: u32::try_from(stack_bytes).unwrap_or(u32::MAX),
        goroutines: u32::from(profile.goroutines),
        interpreter: interpreter.unwrap_or_default(),
    }
}
