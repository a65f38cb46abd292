//! A call's place, in words.

use crate::outputs::text::style::printable;
use leak_stacks::Frame;

/// `function at file:line`; without a function, the address in its module.
pub(super) fn place(frame: &Frame) -> String {
    let function = match (&frame.function, &frame.module) {
        (Some(function), _) => printable(function),
        (None, Some(module)) => format!("{}+{:#x}", printable(module), frame.address),
        (None, None) => format!("{:#x}", frame.address),
    };
    match (&frame.file, frame.line) {
        (Some(file), Some(line)) => format!("{function} at {}:{line}", printable(file)),
        (Some(file), None) => format!("{function} at {}", printable(file)),
        (None, _) => function,
    }
}
