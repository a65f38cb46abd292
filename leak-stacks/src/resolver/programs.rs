//! What is known of a process's programs.

use std::collections::HashMap;
use std::sync::Arc;

use crate::binary::modules::Modules;
use crate::languages::language::{LazyMemory, Process};
use crate::languages::runtimes::{Languages, Runtimes};
use crate::process::ProcessKey;
use crate::resolver::seen::SeenThreads;
use crate::stack::Stack;
use crate::time::Timestamp;
use crate::unwind::step::End;
use crate::unwind::walk::WalkedFrame;

/// Most programs of one process, executed one after the other, that are remembered.
const MAX_PROGRAMS: usize = 3;
/// Most different stacks of one program that are remembered by their frames.
const MAX_KNOWN: usize = 2048;

/// The programs that a process has executed, the latest one last; there is at least one.
///
/// A stack is resolved with the program that ran when it was taken, which may be an earlier one:
/// connections survive `execve(2)`.
#[derive(Debug)]
pub(crate) struct Programs(Vec<Program>);

impl Programs {
    /// Those of a process that was first seen with this one.
    pub(crate) fn new(first: Program) -> Self {
        Self(vec![first])
    }

    /// The program of a stack with this image; the latest one when the image is unknown.
    pub(crate) fn of(&self, image: u64) -> Option<&Program> {
        self.0.iter().rev().find(|program| program.is_of(image))
    }

    pub(crate) fn of_mut(&mut self, image: u64) -> Option<&mut Program> {
        self.0.iter_mut().rev().find(|program| program.is_of(image))
    }

    pub(crate) fn latest(&self) -> Option<&Program> {
        self.0.last()
    }

    pub(crate) fn latest_mut(&mut self) -> Option<&mut Program> {
        self.0.last_mut()
    }

    /// Adds what was seen now.
    pub(crate) fn add(&mut self, program: Program) {
        if self.0.last().is_some_and(|last| last.modules.image == program.modules.image) {
            self.0.pop();
        } else if self.0.len() >= MAX_PROGRAMS {
            self.0.remove(0);
        }
        self.0.push(program);
    }
}

/// What a resolved stack is remembered by.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct KnownBy {
    pub(crate) frames: Box<[WalkedFrame]>,
    /// A hash of the noted calls.
    pub(crate) noted: u64,
    pub(crate) noted_are_whole: bool,
    pub(crate) end: End,
    /// Whether as much was copied as ever is.
    pub(crate) wanted_most: bool,
}

/// One program of a process.
#[derive(Debug)]
pub(crate) struct Program {
    process: ProcessKey,
    pub(crate) modules: Modules,
    pub(crate) runtimes: Runtimes,
    memory: LazyMemory,
    known: HashMap<KnownBy, Arc<Stack>>,
    pub(crate) threads: SeenThreads,
}

impl Program {
    pub(crate) fn new(process: ProcessKey, modules: Modules) -> Self {
        Self {
            process,
            modules,
            runtimes: Runtimes::default(),
            memory: LazyMemory::default(),
            known: HashMap::new(),
            threads: SeenThreads::default(),
        }
    }

    /// Whether a stack with this image is of this program, as far as that is known.
    pub(crate) fn is_of(&self, image: u64) -> bool {
        image == 0 || self.modules.image == 0 || self.modules.image == image
    }

    /// Looks for runtimes, and again at those that were found.
    pub(crate) fn look_for_runtimes(&mut self, languages: &mut Languages, now: Timestamp) {
        let (runtimes, process) = self.parts(now);
        runtimes.look(languages, &process);
    }

    /// Its runtimes, and what they are told of the process.
    pub(crate) fn parts(&mut self, now: Timestamp) -> (&mut Runtimes, Process<'_>) {
        let Self { process, modules, runtimes, memory, known: _, threads: _ } = self;
        (runtimes, Process { key: *process, modules, memory, now })
    }

    /// The stack that was resolved from the same frames before.
    pub(crate) fn known_stack(&self, by: &KnownBy) -> Option<Arc<Stack>> {
        self.known.get(by).cloned()
    }

    /// Remembers a resolved stack.
    pub(crate) fn remember(&mut self, by: KnownBy, stack: &Arc<Stack>) {
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert(by, Arc::clone(stack));
    }
}
