//! Clocks.

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_ns};

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// Counts the kernel's ticks, which are some milliseconds apart. The verifier replaces it by one
/// load, where [`now`] is a call that makes others.
#[inline(always)]
pub(crate) fn ticks() -> u32 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_jiffies64() as u32 }
}
