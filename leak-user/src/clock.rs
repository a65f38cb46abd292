//! Reads the clocks. Facts carry the times that they are read at, so the engine needs none.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::model::Timestamp;

/// The present moment of the kernel's `CLOCK_MONOTONIC`, which the kernel programs use too.
pub(crate) fn now() -> Timestamp {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    Timestamp(seconds * 1_000_000_000 + nanoseconds)
}

/// The CPU time that this program has taken, all its threads together.
pub(crate) fn cpu_time() -> Duration {
    taken(ClockId::ProcessCPUTime)
}

/// The CPU time that the calling thread has taken.
pub(crate) fn thread_cpu_time() -> Duration {
    taken(ClockId::ThreadCPUTime)
}

fn taken(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}
