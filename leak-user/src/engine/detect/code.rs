//! Which code stacks run through.
//!
//! The same code leaves different stacks: a query may be prepared or not, a function may send its
//! last request from different lines, a driver may retry. These are one cause, not several.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use crate::engine::senders::Sender;
use crate::model::StackId;
use leak_stacks::{Frame, Language, Stack};

/// Known stacks by id.
pub type Stacks = HashMap<StackId, Arc<Stack>>;

/// Identifies a function, whatever the line and whatever stack leads to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CodeKey {
    /// The function; its address when it has no name; the stack's id when the stack is unknown.
    symbol: String,
    /// Its source file, or else its module.
    place: Option<String>,
}

impl CodeKey {
    fn of(frame: &Frame) -> Self {
        Self {
            symbol: frame.function.clone().unwrap_or_else(|| format!("{:x}", frame.address)),
            place: frame.file.as_ref().or(frame.module.as_ref()).cloned(),
        }
    }

    /// The code that sends a statement; all of it, where there are several functions.
    pub(super) fn of_sender(sender: &Sender) -> Self {
        if let Some(only) = sender.only() {
            return Self::of(only);
        }
        let mut keys: Vec<_> = sender.code.iter().map(Self::of).collect();
        keys.sort_unstable();
        let names: Vec<_> = keys.iter().map(|key| key.symbol.as_str()).collect();
        Self { symbol: names.join(" or "), place: keys.first().and_then(|key| key.place.clone()) }
    }

    /// Stands for the function that an unknown stack would name.
    fn unknown(stack: &StackId) -> Self {
        Self { symbol: stack.to_string(), place: None }
    }
}

/// A path through the application: its functions from the culprit outwards, without lines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum CodePath {
    /// What the stack shows.
    Functions(Arc<[CodeKey]>),
    /// The stack's id, when the stack is unknown or does not lead to the application.
    Stack(StackId),
}

/// A call of the application.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// Its index in the stack.
    pub(super) frame: usize,
    /// Its function.
    pub(super) code: CodeKey,
    line: Option<u32>,
}

impl Call {
    fn of(stack: &Stack, frame: usize) -> Option<Self> {
        let called = stack.frames.get(frame)?;
        Some(Self { frame, code: CodeKey::of(called), line: called.line })
    }

    /// Whether it is at the same place of the same function.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.line == other.line && self.code == other.code
    }
}

/// What is read from one stack.
#[derive(Clone, Debug)]
struct Reading {
    cause: Option<CodeKey>,
    path: Option<CodePath>,
    calls: Option<Arc<[Call]>>,
}

impl Reading {
    fn of(stacks: &Stacks, id: &StackId) -> Self {
        let Some(stack) = stacks.get(id) else {
            let (cause, path) = (CodeKey::unknown(id), CodePath::Stack(*id));
            return Self { cause: Some(cause), path: Some(path), calls: None };
        };
        let Some(frames) = application(stack) else {
            return Self { cause: None, path: None, calls: None };
        };
        let path: Arc<[CodeKey]> = frames.iter().map(CodeKey::of).collect();
        let calls = stack.culprit.iter().chain(&stack.callers);
        Self {
            cause: path.first().cloned(),
            path: Some(CodePath::Functions(path)),
            calls: Some(calls.filter_map(|&frame| Call::of(stack, frame)).collect()),
        }
    }
}

/// Reads stacks, each one once.
#[derive(Debug)]
pub(super) struct CodeReader<'a> {
    stacks: &'a Stacks,
    readings: RefCell<HashMap<StackId, Reading>>,
}

impl<'a> CodeReader<'a> {
    pub(super) fn new(stacks: &'a Stacks) -> Self {
        Self { stacks, readings: RefCell::default() }
    }

    /// The code to blame: the application's innermost function on the stack, whoever called it and
    /// whatever it called. A stack without application code blames nobody, because frames without
    /// names differ from call to call. An unknown stack is a cause of its own.
    pub(super) fn cause(&self, id: &StackId) -> Option<CodeKey> {
        self.read(id, |reading| reading.cause.clone())
    }

    /// The frame that [`Self::cause`] blames, as its index in the stack.
    pub(super) fn frame(&self, id: &StackId) -> Option<usize> {
        self.stacks.get(id)?.culprit
    }

    /// The language of a known stack.
    pub(super) fn language(&self, id: &StackId) -> Option<Language> {
        Some(self.stacks.get(id)?.language)
    }

    /// The path through the application that a stack shows; `None` when it shows none.
    pub(super) fn path(&self, id: &StackId) -> Option<CodePath> {
        self.read(id, |reading| reading.path.clone())
    }

    /// The calls of the application in a known stack, innermost first; `None` when there are none.
    pub(super) fn calls(&self, id: &StackId) -> Option<Arc<[Call]>> {
        self.read(id, |reading| reading.calls.clone())
    }

    /// Whether a stack leads to the application. An unknown one may.
    pub(super) fn blames(&self, id: &StackId) -> bool {
        self.stacks.get(id).is_none_or(|stack| stack.culprit.is_some())
    }

    fn read<T>(&self, id: &StackId, take: impl FnOnce(&Reading) -> T) -> T {
        let mut readings = self.readings.borrow_mut();
        if let Some(reading) = readings.get(id) {
            return take(reading);
        }
        take(readings.entry(*id).or_insert(Reading::of(self.stacks, id)))
    }
}

/// The frames from the culprit outwards.
fn application(stack: &Stack) -> Option<&[Frame]> {
    stack.frames.get(stack.culprit?..)
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// Calls of these functions, each in a line.
    pub(in crate::engine::detect) fn calls(path: &[(&str, u32)]) -> Arc<[Call]> {
        let call = |(frame, &(function, line)): (usize, &(&str, u32))| Call {
            frame,
            code: CodeKey { symbol: function.to_owned(), place: None },
            line: Some(line),
        };
        path.iter().enumerate().map(call).collect()
    }
}
