//! Shares the latest figures and the event loop's liveness with the HTTP server.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock;
use crate::model::Timestamp;
use crate::outputs::prometheus::pages::Pages;

/// Minimum time without a turn after which the event loop counts as hanging, however short the
/// interval. The event loop turns twice a second.
const LEAST_PATIENCE: Duration = Duration::from_secs(10);

/// Additional time for the start, in which the kernel verifies and loads the programs.
const TO_BEGIN: Duration = Duration::from_secs(60);

/// Number of intervals without a turn after which the event loop counts as hanging.
const PATIENCE: u32 = 3;

/// The latest figures and the time of the event loop's last turn. The lock is only held while a
/// pointer is copied, so neither side waits for the other.
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

    /// Notes that the event loop has turned.
    pub(super) fn turned(&self, now: Timestamp) {
        self.turned_at.store(now.0, Ordering::Relaxed);
    }

    /// Whether the event loop has turned recently.
    pub(super) fn is_alive(&self, now: Timestamp) -> bool {
        now.since(Timestamp(self.turned_at.load(Ordering::Relaxed))) <= self.patience
    }

    pub(super) fn post(&self, pages: Pages) {
        let pages = Some(Arc::new(pages));
        let former = std::mem::replace(&mut *self.lock(), pages);
        // Dropped after the lock is released, because freeing the pages takes time.
        drop(former);
    }

    /// The latest figures; `None` until the first evaluation.
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
