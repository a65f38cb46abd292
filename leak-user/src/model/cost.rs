//! What tracing costs.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The cost of a trace since its hooks were attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// How long the trace has lasted.
    pub lasted: Duration,
    /// CPU time of the collector meanwhile.
    pub collector: Duration,
    /// What the kernel programs took; `None` when the kernel does not tell.
    pub kernel: Option<Sample>,
}

/// How busy something was while it was watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// CPU time taken.
    pub busy: Duration,
    /// Time watched.
    pub watched: Duration,
}

impl Sample {
    /// Cores kept busy: 0.01 is one per cent of one core. `None` when nothing was watched.
    #[must_use]
    pub fn cores(&self) -> Option<f64> {
        (!self.watched.is_zero()).then(|| self.busy.as_secs_f64() / self.watched.as_secs_f64())
    }
}

impl Cost {
    /// Cores that the collector keeps busy.
    #[must_use]
    pub fn collector_cores(&self) -> Option<f64> {
        Sample { busy: self.collector, watched: self.lasted }.cores()
    }

    /// Cores that the kernel programs keep busy.
    #[must_use]
    pub fn kernel_cores(&self) -> Option<f64> {
        self.kernel?.cores()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_time_taken_by_time_watched() {
        let sample = Sample { busy: Duration::from_millis(3), watched: Duration::from_secs(2) };
        let cost = Cost {
            lasted: Duration::from_secs(10),
            collector: Duration::from_millis(1),
            kernel: Some(sample),
        };
        assert_eq!(cost.collector_cores(), Some(0.0001));
        assert_eq!(cost.kernel_cores(), Some(0.0015));
    }

    #[test]
    fn nothing_is_said_of_what_was_not_watched() {
        assert_eq!(
            (Cost::default().collector_cores(), Cost::default().kernel_cores()),
            (None, None)
        );
        let cost = Cost { kernel: Some(Sample::default()), ..Cost::default() };
        assert_eq!(cost.kernel_cores(), None);
    }
}
