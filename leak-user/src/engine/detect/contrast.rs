//! Telling code that keeps connections from code that gives them back, as spectrum-based fault
//! localisation does.
//!
//! The innermost call of the application is often a helper through which all requests go, and the
//! last user of a connection is not always the one who lost it: code that takes a connection and
//! does not use it leaves no request of its own. So the calls of uses that kept their connection
//! are held against those of uses after which it was used again.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use crate::engine::detect::CulpritUses;
use crate::engine::detect::code::Call;
use crate::model::StackId;

/// A call that occurs in one of so many uses that gave their connection back hardly ever does.
const HARDLY_EVER: usize = 20;
/// A call through which this many times as many uses go as through its caller is a helper's.
const HELPER: usize = 4;
/// Fewest uses by the same code that gave their connection back and speak for it.
const LEAST_RETURNED: usize = 5;
/// How unlikely it has to be that code which gives connections back was only the last to use those
/// that were lost.
const UNLIKELY: f64 = 0.01;

/// The calls of one use, from the innermost of the application outwards.
type Calls = Arc<[Call]>;

/// What the contrast says of one use that kept its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blamed {
    /// This call, by its place in the use: no other was seen to keep connections as much.
    Call(usize),
    /// Nobody: uses like this one give their connection back.
    Nobody,
}

/// Whom to blame for a use, and how uses by that code ended.
type Outcome = (Blamed, Option<CulpritUses>);

/// The uses of a pool that gave their connection back, and those that kept it.
#[derive(Debug, Default)]
pub(super) struct Contrast {
    returned: Vec<Calls>,
    kept: Vec<Calls>,
    /// What was worked out, by the stack of the use and whether it surely was the last.
    known: RefCell<HashMap<(StackId, bool), Outcome>>,
}

impl Contrast {
    pub(super) fn new(returned: Vec<Calls>, kept: Vec<Calls>) -> Self {
        Self { returned, kept, known: RefCell::default() }
    }

    /// Whom to blame for a use with these calls that kept its connection, and how uses by that code
    /// ended. `surely_last`: no other code can have taken the connection since.
    pub(super) fn blame(&self, stack: StackId, calls: &Calls, surely_last: bool) -> Outcome {
        let mut known = self.known.borrow_mut();
        *known.entry((stack, surely_last)).or_insert_with(|| self.work_out(calls, surely_last))
    }

    fn work_out(&self, calls: &Calls, surely_last: bool) -> Outcome {
        if self.returned.is_empty() {
            return (Blamed::Call(0), None);
        }
        let returned: Vec<usize> = calls.iter().map(|call| with(&self.returned, call)).collect();
        let least = returned.iter().copied().min().unwrap_or_default();
        let hardly_ever = self.returned.len() / HARDLY_EVER;
        let innermost = returned.iter().position(|&count| count <= least + hardly_ever);
        let uses = |at: usize| {
            let kept = calls.get(at).map_or(0, |call| with(&self.kept, call));
            CulpritUses { returned: returned.get(at).copied().unwrap_or_default(), kept }
        };
        let at = innermost.unwrap_or_default();
        if least <= hardly_ever {
            return (Blamed::Call(at), Some(uses(at)));
        }
        // All of its calls are those of uses that give back, too. Then it is to blame only if more
        // of what was lost was last used by it than its share of the uses explains.
        let is_helper = returned.first().is_some_and(|&first| first >= least * HELPER);
        let at = if is_helper { at } else { 0 };
        let CulpritUses { returned, kept } = uses(at);
        let share = returned as f64 / self.returned.len() as f64;
        let by_chance = at_least(kept, self.kept.len(), share) >= UNLIKELY;
        let gives_back = !surely_last && returned >= LEAST_RETURNED && by_chance;
        let blamed = if gives_back { Blamed::Nobody } else { Blamed::Call(at) };
        (blamed, Some(uses(at)))
    }
}

/// In how many of `uses` a call occurs.
fn with(uses: &[Calls], call: &Call) -> usize {
    uses.iter().filter(|calls| calls.iter().any(|other| other.is_like(call))).count()
}

/// The probability of at least `successes` in so many `trials` of this probability each.
fn at_least(successes: usize, trials: usize, each: f64) -> f64 {
    if each >= 1.0 {
        return 1.0;
    }
    let mut term = (1.0 - each).powi(i32::try_from(trials).unwrap_or(i32::MAX));
    let mut fewer = 0.0;
    for count in 0..successes.min(trials) {
        fewer += term;
        let odds = each / (1.0 - each);
        term *= odds * (trials - count) as f64 / (count + 1) as f64;
    }
    (1.0 - fewer).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::detect::code::testing::calls;

    fn contrast(
        returned: &[(usize, &[(&str, u32)])],
        kept: &[(usize, &[(&str, u32)])],
    ) -> Contrast {
        let all = |uses: &[(usize, &[(&str, u32)])]| {
            uses.iter().flat_map(|(count, path)| vec![calls(path); *count]).collect()
        };
        Contrast::new(all(returned), all(kept))
    }

    fn blame(contrast: &Contrast, path: &[(&str, u32)]) -> (Blamed, Option<(usize, usize)>) {
        let (blamed, uses) = contrast.blame(StackId(0), &calls(path), false);
        (blamed, uses.map(|uses| (uses.returned, uses.kept)))
    }

    #[test]
    fn the_caller_of_a_helper_that_everybody_uses_is_blamed() {
        let leak: &[_] = &[("by_id", 9), ("refund", 50), ("serve", 3)];
        let good: &[_] = &[("by_id", 9), ("show", 20), ("serve", 3)];
        let seen = contrast(&[(40, good)], &[(6, leak)]);
        assert_eq!(blame(&seen, leak), (Blamed::Call(1), Some((0, 6))));
    }

    #[test]
    fn an_early_return_is_told_by_its_line() {
        let leak: &[_] = &[("by_id", 9), ("refund", 50), ("serve", 3)];
        let good: &[_] = &[("save", 14), ("refund", 58), ("serve", 3)];
        let other: &[_] = &[("by_id", 9), ("show", 20), ("serve", 3)];
        let seen = contrast(&[(30, good), (30, other)], &[(4, leak)]);
        assert_eq!(blame(&seen, leak).0, Blamed::Call(1));
    }

    #[test]
    fn without_others_the_innermost_call_is_blamed() {
        let leak: &[_] = &[("refund", 50), ("serve", 3)];
        assert_eq!(blame(&contrast(&[], &[(4, leak)]), leak), (Blamed::Call(0), None));
        let other: &[_] = &[("show", 20), ("serve", 3)];
        assert_eq!(blame(&contrast(&[(30, other)], &[(4, leak)]), leak).0, Blamed::Call(0));
    }

    #[test]
    fn code_that_gives_back_is_not_blamed_for_what_was_taken_after_it() {
        let good: &[_] = &[("list", 7), ("serve", 3)];
        let seen = contrast(&[(30, good)], &[(12, good)]);
        assert_eq!(blame(&seen, good), (Blamed::Nobody, Some((30, 12))));
        let (surely, _) = seen.blame(StackId(1), &calls(good), true);
        assert_eq!(surely, Blamed::Call(0), "in the middle of a transaction");
        let few = contrast(&[(3, good)], &[(12, good)]);
        assert_eq!(blame(&few, good).0, Blamed::Call(0), "too few to tell");
    }

    #[test]
    fn code_that_loses_one_in_many_is_blamed_by_its_share() {
        let rare: &[_] = &[("sync", 7), ("serve", 3)];
        let other: &[_] = &[("show", 20), ("serve", 3)];
        let seen = contrast(&[(10, rare), (30, other)], &[(5, rare)]);
        assert_eq!(blame(&seen, rare).0, Blamed::Call(0));
        // As much as its share of the uses explains.
        let mixed = contrast(&[(20, rare), (20, other)], &[(5, rare), (5, other)]);
        assert_eq!(blame(&mixed, rare).0, Blamed::Nobody);
    }

    #[test]
    fn chances_add_up() {
        assert!((at_least(1, 2, 0.5) - 0.75).abs() < 1e-9);
        assert!((at_least(5, 5, 0.25) - 0.25_f64.powi(5)).abs() < 1e-9);
        assert!((at_least(0, 9, 0.1) - 1.0).abs() < 1e-9);
        assert!((at_least(9, 9, 1.0) - 1.0).abs() < 1e-9);
    }
}
