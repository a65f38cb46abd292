//! Files and processes that the resolver does not come back from.
//!
//! A read from a dead network file system may take for ever, and nothing can be done from within the
//! thread that reads. Whoever waits for that thread sees here what holds it up, gives that up, and
//! starts another thread, which leaves it alone.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ProcessKey;
use crate::binary::store::FileId;

/// What the resolver reads, and what it must leave alone.
#[derive(Debug, Default)]
pub struct Watch(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    reading: Option<FileId>,
    files: HashSet<FileId>,
    processes: HashSet<ProcessKey>,
}

impl Watch {
    /// Gives up the file that is being read or, when none is, the process whose request does not end.
    pub fn give_up(&self, process: ProcessKey) {
        let mut state = self.lock();
        match state.reading.take() {
            Some(file) => state.files.insert(file),
            None => state.processes.insert(process),
        };
    }

    /// Gives up a process that cannot be looked at.
    pub fn give_up_process(&self, process: ProcessKey) {
        self.lock().processes.insert(process);
    }

    /// Whether a process must be left alone.
    #[must_use]
    pub fn has_given_up(&self, process: ProcessKey) -> bool {
        self.lock().processes.contains(&process)
    }

    /// Says that `file` is being read until what this returns is dropped; `None`: it must not be.
    pub(crate) fn begin(&self, file: FileId) -> Option<Reading<'_>> {
        let mut state = self.lock();
        if state.files.contains(&file) {
            return None;
        }
        state.reading = Some(file);
        Some(Reading { watch: self, file })
    }

    /// Nothing that is done under the lock can leave it half done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file that is being read.
pub(crate) struct Reading<'a> {
    watch: &'a Watch,
    file: FileId,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut state = self.watch.lock();
        // A thread that was given up may come back after all, while its successor reads another file.
        if state.reading == Some(self.file) {
            state.reading = None;
        }
    }
}
