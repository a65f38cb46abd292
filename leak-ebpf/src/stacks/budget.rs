//! The time that may be spent on stacks.

use crate::kernel::clock::now;
use crate::maps::{BUDGET, Budget, constant};

/// The budget applies to spans of this length.
const SECOND_NS: u64 = 1_000_000_000;

/// The budget for stacks at the time `now`; `None` when that of the current second is spent.
#[inline(always)]
pub(super) fn left(now: u64) -> Option<&'static mut Budget> {
    let budget = BUDGET.get_ptr_mut(0)?;
    // SAFETY: the value lives as long as the map. Processors race for it; at worst some
    // microseconds are not counted.
    let budget = unsafe { &mut *budget };
    // A time that is only exact to a tick may lie before.
    if now.saturating_sub(budget.began_ns) >= SECOND_NS {
        budget.began_ns = now;
        budget.spent_ns = 0;
    }
    (budget.spent_ns < constant!(CONFIG.stack_budget_ns)).then_some(budget)
}

/// Charges the time since `began`.
#[inline(always)]
pub(super) fn charge(budget: &mut Budget, began: u64) {
    budget.spent_ns += now().wrapping_sub(began);
}
