//! Watchdog for reads that hang.
//!
//! A read from a dead network file system may block for ever, and the blocked thread can do nothing
//! about it. Whoever waits for that thread learns here which file blocks it, gives up the file
//! system that it is on, and starts another thread, which touches nothing there. When the blocked
//! read returns after all, the file system answers again, and is read again.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::process::ProcessKey;
use crate::process::file_id::FileId;

/// Knows which file is being read, and what must not be read for now.
#[derive(Debug, Default)]
pub struct ReadWatchdog(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// How many reads have begun.
    begun: u64,
    /// The read under way, and the file system that it waits for.
    reading: Option<(u64, Device)>,
    /// File systems that were given up, each with the read that hangs.
    devices: HashMap<Device, u64>,
    processes: HashSet<ProcessKey>,
}

/// Number of the device that a file system is on.
type Device = u64;

impl ReadWatchdog {
    /// Gives up the file system that is being read or, if there is none, the process whose request
    /// hangs.
    pub fn give_up(&self, process: ProcessKey) {
        let mut state = self.lock();
        match state.reading.take() {
            Some((read, device)) => {
                state.devices.insert(device, read);
            }
            None => {
                state.processes.insert(process);
            }
        }
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
        let device = file.device();
        let mut state = self.lock();
        if state.devices.contains_key(&device) {
            return None;
        }
        state.begun += 1;
        let read = state.begun;
        state.reading = Some((read, device));
        Some(Reading { watchdog: self, read })
    }

    /// Nothing that is done under the lock can leave it half done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A read under way.
pub(crate) struct Reading<'a> {
    watchdog: &'a ReadWatchdog,
    read: u64,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut state = self.watchdog.lock();
        // A thread that was given up may return after all, while its successor reads another file.
        if state.reading.is_some_and(|(read, _)| read == self.read) {
            state.reading = None;
        }
        state.devices.retain(|_, read| *read != self.read);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROCESS: ProcessKey = ProcessKey { pid: 1, start_ticks: 1 };

    #[test]
    fn a_file_system_that_hangs_is_left_alone_until_it_answers() {
        let watchdog = ReadWatchdog::default();
        let [dead, neighbour, sound] = [(7, 1), (7, 2), (8, 1)].map(|(d, i)| FileId::at(d, i));
        let hanging = watchdog.begin(dead).unwrap();
        watchdog.give_up(PROCESS);
        assert!(!watchdog.has_given_up(PROCESS), "the file is to blame");
        assert!(watchdog.begin(dead).is_none() && watchdog.begin(neighbour).is_none());
        // Reading elsewhere does not bring it back.
        drop(watchdog.begin(sound).unwrap());
        assert!(watchdog.begin(neighbour).is_none());
        drop(hanging);
        assert!(watchdog.begin(neighbour).is_some());
    }

    #[test]
    fn without_a_read_under_way_the_process_is_to_blame() {
        let watchdog = ReadWatchdog::default();
        drop(watchdog.begin(FileId::at(7, 1)).unwrap());
        watchdog.give_up(PROCESS);
        assert!(watchdog.has_given_up(PROCESS));
        assert!(watchdog.begin(FileId::at(7, 1)).is_some());
    }
}
