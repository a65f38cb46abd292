//! Which of a runtime's own descriptions of threads is of which thread.

use std::collections::HashMap;

use crate::time::Timestamp;

/// Most threads that are known.
pub(crate) const MAX_THREADS: usize = 16 << 10;

/// The descriptions' addresses by the kernel's numbers of the threads. Threads come and go, so it
/// holds for one moment.
#[derive(Debug, Default)]
pub(crate) struct ThreadIndex {
    made_at: Option<Timestamp>,
    by_number: HashMap<u32, u64>,
}

impl ThreadIndex {
    /// The description of a thread. `list` gives all that there are, each with its thread; at most
    /// [`MAX_THREADS`] of them are taken.
    pub(crate) fn find<I: Iterator<Item = (u32, u64)>>(
        &mut self,
        tid: u32,
        now: Timestamp,
        list: impl FnOnce() -> I,
    ) -> Option<u64> {
        if self.made_at != Some(now) {
            self.made_at = Some(now);
            self.by_number = list().take(MAX_THREADS).collect();
        }
        self.by_number.get(&tid).copied()
    }
}
