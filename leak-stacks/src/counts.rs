//! How many stacks are complete, and why the others are not.

use serde::{Deserialize, Serialize};

use crate::stack::Quality;
use crate::truncation::TruncationReason;

/// How many of the stacks that were wanted came out how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackCounts {
    /// Down to the thread's first function.
    pub complete: u64,
    /// Without outer frames.
    pub truncated: u64,
    /// Without any frame.
    pub none: u64,
    #[serde(default, with = "by_name")]
    reasons: [u64; TruncationReason::ALL.len()],
}

/// How often which reason was met, as a recording keeps it.
mod by_name {
    use std::collections::BTreeMap;

    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::truncation::TruncationReason;

    type Reasons = [u64; TruncationReason::ALL.len()];

    pub(crate) fn serialize<S: Serializer>(reasons: &Reasons, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(TruncationReason::ALL.iter().zip(reasons).filter(|(_, count)| **count > 0))
    }

    pub(crate) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Reasons, D::Error> {
        let told = BTreeMap::<TruncationReason, u64>::deserialize(from)?;
        Ok(TruncationReason::ALL.map(|reason| told.get(&reason).copied().unwrap_or(0)))
    }
}

impl StackCounts {
    /// Counts one stack.
    pub fn add(&mut self, quality: Quality, reason: Option<TruncationReason>) {
        match quality {
            Quality::Complete => self.complete += 1,
            Quality::Truncated => self.truncated += 1,
            Quality::None => self.none += 1,
        }
        if let Some(reason) = reason
            && let Some(count) = self.reasons.get_mut(reason as usize)
        {
            *count += 1;
        }
    }

    /// How often which reason was met, those that were.
    pub fn reasons(&self) -> impl Iterator<Item = (TruncationReason, u64)> {
        TruncationReason::ALL.into_iter().zip(self.reasons).filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_place() {
        let mut counts = StackCounts::default();
        for reason in TruncationReason::ALL {
            counts.add(Quality::Truncated, Some(reason));
        }
        assert!(counts.reasons().eq(TruncationReason::ALL.map(|reason| (reason, 1))));
        counts.add(Quality::Complete, None);
        assert_eq!((counts.complete, counts.truncated, counts.none), (1, 17, 0));
    }
}
