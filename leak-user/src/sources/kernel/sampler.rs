//! What the kernel programs cost, from a second now and then: the kernel's own count costs every
//! program on the machine some 50 ns a run, too much to leave it on.

use std::os::fd::OwnedFd;
use std::time::Duration;

use aya::Ebpf;
use aya::sys::{Stats, enable_stats};

use crate::model::Timestamp;
use crate::model::cost::Sample;
use crate::sources::kernel::statistics;

/// How long the kernel counts at a time.
const WINDOW: Duration = Duration::from_secs(1);

/// From the beginning of one window to that of the next.
const PERIOD: Duration = Duration::from_secs(30);

/// Has the kernel count for one [`WINDOW`] in each [`PERIOD`].
#[derive(Debug, Default)]
pub(super) struct Sampler {
    window: Option<Window>,
    /// When the next window is due; at once at first.
    due: Timestamp,
    /// All past windows together.
    sample: Option<Sample>,
}

/// The kernel counts until this is dropped.
#[derive(Debug)]
struct Window {
    began: Timestamp,
    /// Run time of all programs until it began.
    before: Duration,
    _counting: OwnedFd,
}

impl Sampler {
    /// Opens or closes a window when it is time. To be called about twice a second.
    pub(super) fn turn(&mut self, ebpf: &Ebpf, now: Timestamp) {
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
                    log::debug!("the kernel does not say what its programs cost: {error}");
                }
            }
        }
    }

    /// What was counted so far, in the present window too.
    pub(super) fn sample(&self, ebpf: &Ebpf, now: Timestamp) -> Option<Sample> {
        let Some(window) = &self.window else { return self.sample };
        let Sample { busy, watched } = self.sample.unwrap_or_default();
        Some(Sample {
            busy: busy + statistics::run_time(ebpf).saturating_sub(window.before),
            watched: watched + now.since(window.began),
        })
    }
}
