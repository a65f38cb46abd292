//! The place of a verdict's code, in words.

use crate::engine::detect::StackOf;
use leak_stacks::Frame;

/// "in refund_order (shop.c:120)"; "where they were last used" when the function is unknown.
pub(super) fn of(stack_of: StackOf, culprit: Option<&Frame>) -> String {
    let named = culprit.and_then(|frame| Some((frame, frame.function.as_ref()?)));
    let Some((frame, function)) = named else {
        let role = match stack_of {
            StackOf::OpenedBy => "where they were opened",
            StackOf::LastUsedBy => "where they were last used",
        };
        return role.to_owned();
    };
    match (&frame.file, frame.line) {
        (Some(file), Some(line)) => {
            let name = file.rsplit('/').next().unwrap_or(file);
            format!("in {function} ({name}:{line})")
        }
        _ => format!("in {function}"),
    }
}
