//! Decodes copied stacks.

use leak_common::interpreter;
use leak_common::stack::{MAX_STACK, StackHeader};
use leak_stacks::{InterpreterFrame, RawStack, TruncationReason};

use crate::sources::kernel::decode::fields::process_key;

/// Takes a copied stack out of its record.
///
/// # Errors
///
/// When nothing was copied, with the reason.
pub fn raw_stack(header: &StackHeader, bytes: &[u8]) -> Result<RawStack, TruncationReason> {
    let copied = bytes.get(..header.len as usize).unwrap_or_default();
    if copied.is_empty() {
        // The programs check the budget before they decide how much to copy.
        return Err(if header.wanted == 0 {
            TruncationReason::OverBudget
        } else {
            TruncationReason::UnreadableStack
        });
    }
    Ok(RawStack {
        process: process_key(header.tgid, header.process_start_ns),
        tid: header.tid,
        image: header.image,
        ip: header.ip,
        sp: header.sp,
        bp: header.bp,
        preserved: header.preserved,
        registers_known: true,
        entry: None,
        wanted: header.wanted,
        wanted_most: header.wanted as usize >= MAX_STACK,
        goroutine_window: header.goroutine.to_vec(),
        interpreter_frames: header
            .interpreter_frames
            .iter()
            .take(header.interpreter_len as usize)
            .map(interpreter_frame)
            .collect(),
        interpreter_whole: header.interpreter_whole != 0,
        interpreter_tag: header.interpreter_tag,
        bytes: copied.to_vec(),
    })
}

fn interpreter_frame(frame: &interpreter::InterpreterFrame) -> InterpreterFrame {
    let interpreter::InterpreterFrame { pointer, position, cookie, kind } = *frame;
    InterpreterFrame { pointer, position, cookie, kind }
}
