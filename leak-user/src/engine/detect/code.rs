//! What stacks say of the code that they run through.
//!
//! The same code leaves different stacks: a query may be prepared or not, a function may send its
//! last request from one line or another, a driver may retry. Neither is another cause.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use crate::model::StackId;
use leak_stacks::{Frame, Stack};

/// Stacks at hand, by identity.
pub type Stacks = HashMap<StackId, Arc<Stack>>;

/// Names a function: the same for every line of it and every stack that leads to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CodeKey {
    /// The function; without a name, its address in its module. Of a stack that is not at hand, the
    /// stack.
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

    /// Stands for the function that a stack would name if it were at hand.
    fn unknown(stack: &StackId) -> Self {
        Self { symbol: stack.0.clone(), place: None }
    }
}

/// A way through the application: its functions from the culprit outwards, without lines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum CodePath {
    /// What the stack shows.
    Functions(Arc<[CodeKey]>),
    /// The stack, when it is not at hand or does not lead to the application.
    Stack(StackId),
}

/// What one stack says.
#[derive(Clone, Debug)]
struct Reading {
    cause: Option<CodeKey>,
    path: Option<CodePath>,
}

impl Reading {
    fn of(stacks: &Stacks, id: &StackId) -> Self {
        let Some(stack) = stacks.get(id) else {
            let (cause, path) = (CodeKey::unknown(id), CodePath::Stack(id.clone()));
            return Self { cause: Some(cause), path: Some(path) };
        };
        let Some(frames) = application(stack) else { return Self { cause: None, path: None } };
        let path: Arc<[CodeKey]> = frames.iter().map(CodeKey::of).collect();
        Self { cause: path.first().cloned(), path: Some(CodePath::Functions(path)) }
    }
}

/// Reads stacks, each of them once.
#[derive(Debug)]
pub(super) struct CodeReader<'a> {
    stacks: &'a Stacks,
    readings: RefCell<HashMap<StackId, Reading>>,
}

impl<'a> CodeReader<'a> {
    pub(super) fn new(stacks: &'a Stacks) -> Self {
        Self { stacks, readings: RefCell::default() }
    }

    /// The code to blame: the function of the application that the stack leads to, whoever called
    /// it and whatever it called. A stack that leads to none blames nobody: frames without names
    /// differ from call to call. One that is not at hand is a cause of its own.
    pub(super) fn cause(&self, id: &StackId) -> Option<CodeKey> {
        self.read(id, |reading| reading.cause.clone())
    }

    /// The way through the application that a stack tells of. `None` when it tells of none.
    pub(super) fn path(&self, id: &StackId) -> Option<CodePath> {
        self.read(id, |reading| reading.path.clone())
    }

    /// Whether a stack leads to the application. One that is not at hand may.
    pub(super) fn blames(&self, id: &StackId) -> bool {
        self.stacks.get(id).is_none_or(|stack| stack.culprit.is_some())
    }

    fn read<T>(&self, id: &StackId, take: impl FnOnce(&Reading) -> T) -> T {
        let mut readings = self.readings.borrow_mut();
        if let Some(reading) = readings.get(id) {
            return take(reading);
        }
        take(readings.entry(id.clone()).or_insert(Reading::of(self.stacks, id)))
    }
}

/// The frames from the culprit outwards.
fn application(stack: &Stack) -> Option<&[Frame]> {
    stack.frames.get(stack.culprit?..)
}
