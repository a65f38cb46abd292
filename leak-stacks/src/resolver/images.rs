//! What is known of a process's programs.

use std::collections::HashMap;
use std::sync::Arc;

use crate::Stack;
use crate::languages::python::PythonProcess;
use crate::process::modules::Modules;
use crate::unwind::walk::End;

/// Most programs of one process, executed one after the other, that are remembered.
const MAX_IMAGES: usize = 3;

/// The programs that a process has executed, the latest one last; there is at least one.
///
/// A stack is resolved with the program that ran when it was taken, which may be an earlier one:
/// connections survive `execve(2)`.
#[derive(Debug)]
pub(crate) struct Images(pub(super) Vec<ProcessState>);

impl Images {
    /// The program of a stack with this image; the latest one when the image is unknown.
    pub(crate) fn of(&self, image: u64) -> Option<&ProcessState> {
        self.0.iter().rev().find(|state| state.is_of(image))
    }

    pub(crate) fn of_mut(&mut self, image: u64) -> Option<&mut ProcessState> {
        self.0.iter_mut().rev().find(|state| state.is_of(image))
    }

    /// Adds what was seen now.
    pub(crate) fn add(&mut self, state: ProcessState) {
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
pub(crate) struct Known {
    pub(crate) native: Box<[u64]>,
    /// A hash of the Python calls.
    pub(crate) python: u64,
    pub(crate) python_is_whole: bool,
    pub(crate) end: End,
    /// Whether as much was copied as ever is.
    pub(crate) is_longest: bool,
}

#[derive(Debug)]
pub(crate) struct ProcessState {
    pub(crate) modules: Modules,
    pub(crate) python: PythonProcess,
    /// It was seen to be written in Go.
    pub(crate) is_go: bool,
    pub(crate) known: HashMap<Known, Arc<Stack>>,
}

impl ProcessState {
    pub(crate) fn new(modules: Modules) -> Self {
        let python = PythonProcess::default();
        Self { modules, python, is_go: false, known: HashMap::new() }
    }

    pub(crate) fn is_of(&self, image: u64) -> bool {
        image == 0 || self.modules.image == 0 || self.modules.image == image
    }
}
