//! Samples the CPU time of the kernel programs, one second in thirty.
//!
//! The kernel's run-time statistics cost every BPF program on the machine some 50 ns a run: too
//! much to leave them on.

use std::os::fd::OwnedFd;
use std::time::Duration;

use aya::Ebpf;
use aya::sys::{Stats, enable_stats};

use crate::model::Sample;
use crate::model::Timestamp;
use crate::sources::kernel::statistics;

/// How long statistics are on.
const WINDOW: Duration = Duration::from_secs(1);

/// From the start of one window to the start of the next.
const PERIOD: Duration = Duration::from_secs(30);

/// Turns statistics on for one [`WINDOW`] in each [`PERIOD`].
#[derive(Debug, Default)]
pub(super) struct Sampler {
    window: Option<Window>,
    /// When the next window starts; the first one starts at once.
    due: Timestamp,
    /// The sum of all past windows.
    sample: Option<Sample>,
}

/// Statistics are on until this is dropped.
#[derive(Debug)]
struct Window {
    began: Timestamp,
    /// Run time of all programs before the window.
    before: Duration,
    _counting: OwnedFd,
}

impl Sampler {
    /// Opens or closes a window when it is due. Call this about twice a second.
    pub(super) fn tick(&mut self, ebpf: &Ebpf, now: Timestamp) {
        if self.window.as_ref().is_some_and(|window| now.since(window.began) >= WINDOW) {
            self.sample = self.sample(ebpf, now);
            self.window = None;
        } else if self.window.is_none() && now >= self.due {
            self.due = now.after(PERIOD);
            match enable_stats(Stats::RunTime) {
                Ok(counting) => {
                    let before = statistics::run_time(ebpf);
                    self.window = Some(Window { began: now, before, _counting: counting });
                }
                Err(error) => {
                    log::debug!("the cost of the kernel programs cannot be sampled: {error}");
                }
            }
        }
    }

    /// The sum of all windows, including the open one.
    pub(super) fn sample(&self, ebpf: &Ebpf, now: Timestamp) -> Option<Sample> {
        let Some(window) = &self.window else { return self.sample };
        let Sample { busy, watched } = self.sample.unwrap_or_default();
        Some(Sample {
            busy: busy + statistics::run_time(ebpf).saturating_sub(window.before),
            watched: watched + now.since(window.began),
        })
    }
}
