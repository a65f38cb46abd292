//! The only place that reads a clock on behalf of everything after decoding.

use std::time::{Duration, SystemTime};

use crate::event::Timestamp;

/// The present moment of the kernel's `CLOCK_MONOTONIC`, which the kernel programs use too.
#[must_use]
pub fn now() -> Timestamp {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec. The call cannot fail: the clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    Timestamp(seconds * 1_000_000_000 + nanoseconds)
}

/// The calendar time of `Timestamp(0)`, as far as the two clocks agree now.
#[must_use]
pub fn epoch() -> SystemTime {
    SystemTime::now() - Duration::from_nanos(now().0)
}
