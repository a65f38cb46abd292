//! How the tracer itself fared: what it missed is always told, what it cost only when asked.

use std::io;

use crate::engine::snapshot::Snapshot;
use crate::model::{Cost, Health, StackCopies};
use crate::outputs::text::line::Line;
use crate::outputs::text::look::Look;
use crate::outputs::text::plural_of;
use crate::outputs::text::style::Tone;
use leak_stacks::StackCounts;

/// Writes a line for each thing that there is to say.
pub(super) fn write(
    out: &mut impl io::Write,
    look: &Look,
    snapshot: &Snapshot<'_>,
) -> io::Result<()> {
    let (health, losses) = (snapshot.health, snapshot.table.losses());
    let mut say = |tone, text: &str| Line::new(0, 2).toned(tone, text).write(out, look);
    if let Some(told) = events(health, losses.reconciled(), look.verbose) {
        say(if health.lost > 0 { Tone::Suspect } else { Tone::Dim }, &told)?;
    }
    if losses.refused + losses.untracked > 0 {
        let told = format!(
            "the table was full: {} connections refused, {} not tracked at the last inventory",
            losses.refused, losses.untracked
        );
        say(Tone::Suspect, &told)?;
    }
    if losses.folded > 0 {
        let count = plural_of(losses.folded, "connection");
        let told = format!("too many servers to tell apart: growth was not checked for {count}");
        say(Tone::Suspect, &told)?;
    }
    if health.skipped_runs > 0 {
        let runs = plural_of(health.skipped_runs, "run");
        say(
            Tone::Dim,
            &format!("the kernel skipped {runs} of the tracing programs, for any socket"),
        )?;
    }
    let told = [quality(&health.stacks), copies(&health.copies)].into_iter().flatten();
    for told in told.chain(cost(&health.cost).filter(|_| look.verbose)) {
        say(Tone::Dim, &told)?;
    }
    Ok(())
}

/// "72 events received, 3 lost, 0 reconciled; 0 stacks skipped": what is 0 only when asked.
fn events(health: &Health, reconciled: u64, all: bool) -> Option<String> {
    let losses = [(health.lost, "lost"), (reconciled, "reconciled")];
    let losses: Vec<_> = losses
        .iter()
        .filter(|&&(count, _)| all || count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    let skipped = (all || health.stacks_skipped > 0)
        .then(|| format!("{} skipped", plural_of(health.stacks_skipped, "stack")));
    let received = || format!("{} received", plural_of(health.received, "event"));
    let counted = (!losses.is_empty()).then(|| format!("{}, {}", received(), losses.join(", ")));
    let told: Vec<_> = [counted, skipped].into_iter().flatten().collect();
    (!told.is_empty()).then(|| told.join("; "))
}

/// When there are stacks that are not complete, with the reasons.
fn quality(counts: &StackCounts) -> Option<String> {
    let StackCounts { complete, truncated, none, .. } = *counts;
    if truncated + none == 0 {
        return None;
    }
    let reasons: Vec<_> =
        counts.reasons().map(|(reason, count)| format!("{count} {}", reason.describe())).collect();
    Some(format!(
        "stacks: {complete} complete, {truncated} truncated, {none} none ({})",
        reasons.join("; ")
    ))
}

/// When not every stack was copied.
fn copies(copies: &StackCopies) -> Option<String> {
    let StackCopies { recorded: _, over_budget, no_slot, unreadable } = *copies;
    let share = copies.share().filter(|share| *share < 1.0)? * 100.0;
    let reasons = [
        (over_budget, "over the budget (--stack-budget)"),
        (no_slot, "no room left (--stack-slots, or memory)"),
        (unreadable, "unreadable"),
    ];
    let reasons = reasons.iter().filter(|(count, _)| *count > 0);
    let reasons: Vec<_> = reasons.map(|(count, why)| format!("{count} {why}")).collect();
    Some(format!("{share:.1} % of stacks recorded; missed: {}", reasons.join("; ")))
}

fn cost(cost: &Cost) -> Option<String> {
    let collector = cost.collector_cores()?;
    let percent = |cores: f64| format!("{:.2} %", cores * 100.0);
    Some(match cost.kernel_cores() {
        Some(kernel) => format!(
            "cost: {} of a core ({} in the kernel, {} in the collector)",
            percent(kernel + collector),
            percent(kernel),
            percent(collector)
        ),
        None => format!(
            "cost: {} of a core in the collector; measuring the kernel programs needs CAP_SYS_ADMIN",
            percent(collector)
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_always_told_and_what_is_zero_is_not() {
        let mut health = Health { received: 72, ..Health::default() };
        assert_eq!(events(&health, 0, false), None);
        assert_eq!(
            events(&health, 0, true).unwrap(),
            "72 events received, 0 lost, 0 reconciled; 0 stacks skipped"
        );
        health.lost = 3;
        assert_eq!(events(&health, 0, false).unwrap(), "72 events received, 3 lost");
        health.stacks_skipped = 1;
        assert_eq!(
            events(&health, 2, false).unwrap(),
            "72 events received, 3 lost, 2 reconciled; 1 stack skipped"
        );
    }
}
