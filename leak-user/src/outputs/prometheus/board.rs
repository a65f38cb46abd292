//! What the event loop leaves for whoever serves it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock;
use crate::model::Timestamp;
use crate::outputs::prometheus::pages::Pages;

/// The event loop turns twice a second; it is given up when it has not for this long, however
/// short its interval.
const LEAST_PATIENCE: Duration = Duration::from_secs(10);

/// How long it may take to begin: kernel programs are checked and loaded first.
const TO_BEGIN: Duration = Duration::from_secs(60);

/// Intervals for which the event loop may stand still.
const PATIENCE: u32 = 3;

/// The latest figures, and a sign of life. Neither side ever waits for the other: the lock is held
/// while a pointer is copied.
#[derive(Debug)]
pub(super) struct Board {
    pages: Mutex<Option<Arc<Pages>>>,
    turned_at: AtomicU64,
    patience: Duration,
}

impl Board {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            pages: Mutex::new(None),
            turned_at: AtomicU64::new(clock::now().after(TO_BEGIN).0),
            patience: (interval * PATIENCE).max(LEAST_PATIENCE),
        }
    }

    /// The event loop has turned.
    pub(super) fn turned(&self, now: Timestamp) {
        self.turned_at.store(now.0, Ordering::Relaxed);
    }

    /// Whether the event loop still turns.
    pub(super) fn is_alive(&self, now: Timestamp) -> bool {
        now.since(Timestamp(self.turned_at.load(Ordering::Relaxed))) <= self.patience
    }

    pub(super) fn post(&self, pages: Pages) {
        let pages = Some(Arc::new(pages));
        let former = std::mem::replace(&mut *self.lock(), pages);
        // Thrown away when nobody waits for the lock.
        drop(former);
    }

    /// The latest figures; `None` until the first inventory is judged.
    pub(super) fn latest(&self) -> Option<Arc<Pages>> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<Pages>>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_stands_still_is_noticed() {
        let board = Board::new(Duration::from_secs(20));
        let start = Timestamp(1_000_000_000_000);
        board.turned(start);
        assert!(board.is_alive(start.after(Duration::from_secs(60))));
        assert!(!board.is_alive(start.after(Duration::from_secs(61))));
        let hasty = Board::new(Duration::from_millis(100));
        hasty.turned(start);
        assert!(hasty.is_alive(start.after(Duration::from_secs(10))));
    }
}
