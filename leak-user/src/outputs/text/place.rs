//! Where code is, in words.

use crate::outputs::text::style::printable;
use leak_stacks::Frame;

/// `function at file:line`; without a function, the line alone, or else the
/// address in its module.
pub(super) fn place(frame: &Frame) -> String {
    if let (None, Some(file), Some(line)) = (&frame.function, &frame.file, frame.line) {
        return format!("{}:{line}", printable(file));
    }
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
