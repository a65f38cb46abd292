//! What stacks say of the code that they run through.
//!
//! The same code leaves different stacks: a query may be prepared or not, a function may send its last
//! request from one line or another, a driver may retry. Neither is another cause.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::model::StackId;
use leak_stacks::{Frame, Stack};

/// Stacks at hand, by identity.
pub type Stacks = HashMap<StackId, Arc<Stack>>;

/// Names what is to blame: the function of the application that the stack leads to, whoever called
/// it and whatever it called. A stack that leads to none blames nobody: frames without names differ
/// from call to call. One that is not at hand is a cause of its own.
pub(super) fn cause(stacks: &Stacks, id: &StackId) -> Option<String> {
    let Some(stack) = stacks.get(id) else { return Some(id.to_string()) };
    application(stack)?.first().map(name)
}

/// Names the way through the application that a stack tells of: its functions from the culprit
/// outwards, without lines. `None` when it tells of none.
pub(super) fn path(stacks: &Stacks, id: &StackId) -> Option<String> {
    let Some(stack) = stacks.get(id) else { return Some(id.to_string()) };
    let path = application(stack)?.iter().fold(String::new(), |mut path, frame| {
        path.push_str(&name(frame));
        path.push('\n');
        path
    });
    Some(path)
}

/// Whether a stack leads to the application. One that is not at hand may.
pub(super) fn blames(stacks: &Stacks, id: &StackId) -> bool {
    stacks.get(id).is_none_or(|stack| stack.culprit.is_some())
}

/// The frames from the culprit outwards.
fn application(stack: &Stack) -> Option<&[Frame]> {
    stack.frames.get(stack.culprit?..)
}

/// A function with its file; without a name, an address in its module.
fn name(frame: &Frame) -> String {
    let mut name = frame.function.clone().unwrap_or_default();
    if frame.function.is_none() {
        // Writing into a string does not fail.
        let _ = write!(name, "{:x}", frame.address);
    }
    if let Some(place) = frame.file.as_ref().or(frame.module.as_ref()) {
        name.push('\0');
        name.push_str(place);
    }
    name
}
