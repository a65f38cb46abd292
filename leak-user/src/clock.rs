//! The only place that reads a clock on behalf of everything after decoding.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use crate::model::Timestamp;

/// The present moment of the kernel's `CLOCK_MONOTONIC`, which the kernel programs use too.
#[must_use]
pub fn now() -> Timestamp {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    Timestamp(seconds * 1_000_000_000 + nanoseconds)
}

/// The CPU time that this program has taken, all its threads together.
#[must_use]
pub fn cpu_time() -> Duration {
    taken(ClockId::ProcessCPUTime)
}

/// The CPU time that the calling thread has taken.
#[must_use]
pub fn thread_cpu_time() -> Duration {
    taken(ClockId::ThreadCPUTime)
}

fn taken(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The calendar time of `Timestamp(0)`, as far as the two clocks agree now.
#[must_use]
pub fn epoch() -> SystemTime {
    SystemTime::now() - Duration::from_nanos(now().0)
}
