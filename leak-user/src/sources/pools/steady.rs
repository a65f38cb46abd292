//! Readings of what may change meanwhile.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

/// How often a pool is read that changes meanwhile.
const ATTEMPTS: u32 = 60;
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_micros(20);

/// What two readings in a row both say; `None` when there were none.
pub(super) fn twice<T: PartialEq>(until: Instant, read: impl Fn() -> Option<T>) -> Option<T> {
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            thread::sleep(PAUSE);
        }
        let (first, second) = (read(), read());
        if first.is_some() && first == second {
            return first;
        }
        if Instant::now() >= until {
            break;
        }
    }
    None
}

/// A connection's address, with its descriptor and whether it is checked out.
pub(super) type Located = (u64, (u64, bool));

/// Descriptors of connections, and whether each is checked out, as far as two readings say the
/// same.
pub(super) fn agreed(before: Vec<Located>, after: Vec<Located>) -> Vec<(u64, bool)> {
    let after: HashMap<_, _> = after.into_iter().collect();
    let mut same: Vec<_> = before
        .into_iter()
        .filter(|(connection, state)| after.get(connection) == Some(state))
        .map(|(_, state)| state)
        .collect();
    // A descriptor has one connection; when two say that it is theirs, one is outdated.
    let mut counts: HashMap<u64, u32> = HashMap::new();
    for (descriptor, _) in &same {
        *counts.entry(*descriptor).or_default() += 1;
    }
    same.retain(|(descriptor, _)| counts.get(descriptor) == Some(&1));
    same
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_keeps_changing_is_unknown() {
        let readings = Cell::new(0);
        let next = || {
            readings.set(readings.get() + 1);
            Some(readings.get())
        };
        let later = Instant::now() + Duration::from_secs(60);
        assert_eq!(twice(later, next), None);
        assert_eq!(readings.get(), 2 * ATTEMPTS);
        assert_eq!(twice(later, || Some(next()? > 0)), Some(true));
        assert_eq!(twice(later, || None::<u32>), None);
    }

    #[test]
    fn a_descriptor_that_two_connections_claim_is_nobody_s() {
        let first = vec![(1, (7, true)), (2, (8, false)), (3, (9, true)), (4, (9, false))];
        let second = vec![(1, (7, true)), (2, (8, true)), (3, (9, true)), (4, (9, false))];
        assert_eq!(agreed(first, second), [(7, true)]);
    }
}
