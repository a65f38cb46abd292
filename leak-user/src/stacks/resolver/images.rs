//! What is known of a process's programs.

use std::collections::HashMap;
use std::sync::Arc;

use crate::stacks::Stack;
use crate::stacks::modules::Modules;
use crate::stacks::python::PythonProcess;
use crate::stacks::unwind::End;

/// Most programs of one process, executed one after the other, that are remembered.
const MAX_IMAGES: usize = 3;

/// The programs that a process has executed, the latest one last; there is at least one.
///
/// A stack is resolved with the program that ran when it was taken, which may be an earlier one:
/// connections survive `execve(2)`.
#[derive(Debug)]
pub(super) struct Images(pub(super) Vec<ProcessState>);

impl Images {
    /// The program of a stack with this image; the latest one when the image is unknown.
    pub(super) fn of(&self, image: u64) -> Option<&ProcessState> {
        self.0.iter().rev().find(|state| state.is_of(image))
    }

    pub(super) fn of_mut(&mut self, image: u64) -> Option<&mut ProcessState> {
        self.0.iter_mut().rev().find(|state| state.is_of(image))
    }

    /// Adds what was seen now.
    pub(super) fn add(&mut self, state: ProcessState) {
        if self.0.last().is_some_and(|last| last.modules.image == state.modules.image) {
            self.0.pop();
        } else if self.0.len() >= MAX_IMAGES {
            self.0.remove(0);
        }
        self.0.push(state);
    }
}

/// What a resolved stack is remembered by.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Known {
    pub(super) native: Box<[u64]>,
    /// A hash of the Python calls.
    pub(super) python: u64,
    pub(super) python_is_whole: bool,
    pub(super) end: End,
    /// Whether as much was copied as ever is.
    pub(super) is_longest: bool,
}

#[derive(Debug)]
pub(super) struct ProcessState {
    pub(super) modules: Modules,
    pub(super) python: PythonProcess,
    /// It was seen to be written in Go.
    pub(super) is_go: bool,
    pub(super) known: HashMap<Known, Arc<Stack>>,
}

impl ProcessState {
    pub(super) fn new(modules: Modules) -> Self {
        let python = PythonProcess::default();
        Self { modules, python, is_go: false, known: HashMap::new() }
    }

    pub(super) fn is_of(&self, image: u64) -> bool {
        image == 0 || self.modules.image == 0 || self.modules.image == image
    }
}
