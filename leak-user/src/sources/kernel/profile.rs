//! What was learnt about a process, in the form that the kernel programs read.

use leak_common::stack::{MAX_STACK, PythonProfile, SHORT_STACK, StackProfile};
use leak_stacks::{CopyLength, InterpreterProfile, walker};

/// A process's profile for the kernel programs.
pub(super) fn for_kernel(profile: leak_stacks::StackProfile) -> StackProfile {
    let stack_bytes = match profile.copy_length {
        CopyLength::Usual => 0,
        CopyLength::Generous => SHORT_STACK,
        CopyLength::Most => MAX_STACK,
    };
    let python = profile.interpreter.filter(|interpreter| interpreter.kind == walker::CPYTHON);
    StackProfile {
        stack_bytes: u32::try_from(stack_bytes).unwrap_or(u32::MAX),
        goroutines: u32::from(profile.goroutines),
        python: python.map(cpython).unwrap_or_default(),
    }
}

fn cpython(profile: InterpreterProfile) -> PythonProfile {
    let [slots, slot, frame, control_frame, window, window_len, rest @ ..] = profile.parameters;
    let [code, instruction, previous, owner, foreign_owner, ..] = rest;
    PythonProfile {
        present: 1,
        tag: profile.tag,
        slots,
        slot,
        frame,
        control_frame,
        window,
        window_len,
        code,
        instruction,
        previous,
        owner,
        foreign_owner,
    }
}
