//! Watchdog for reads that hang.
//!
//! A read from a dead network file system may block for ever, and the blocked thread can do nothing
//! about it. Whoever waits for that thread learns here which file blocks it, gives that file up,
//! and starts another thread, which does not touch the file again.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::process::ProcessKey;
use crate::process::file_id::FileId;

/// Knows which file is being read, and what must not be read again.
#[derive(Debug, Default)]
pub struct ReadWatchdog(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    reading: Option<FileId>,
    files: HashSet<FileId>,
    processes: HashSet<ProcessKey>,
}

impl ReadWatchdog {
    /// Gives up the file that is being read or, if there is none, the process whose request hangs.
    pub fn give_up(&self, process: ProcessKey) {
        let mut state = self.lock();
        match state.reading.take() {
            Some(file) => state.files.insert(file),
            None => state.processes.insert(process),
        };
    }

    /// Gives up a process whose mappings cannot be read.
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
        Some(Reading { watchdog: self, file })
    }

    /// Nothing that is done under the lock can leave it half done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file that is being read.
pub(crate) struct Reading<'a> {
    watchdog: &'a ReadWatchdog,
    file: FileId,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut state = self.watchdog.lock();
        // A thread that was given up may return after all, while its successor reads another file.
        if state.reading == Some(self.file) {
            state.reading = None;
        }
    }
}
