//! Text for people: a live table, findings as they arise, and the report at the end.

mod columns;
mod finding;
mod holders;
mod listing;
mod older;
mod place;
mod pools;
mod refused;
mod sender;
mod servers;
mod session;
mod sink;
mod style;
mod table;
mod waiting;

use std::io;

pub use listing::write_listing;
pub use sink::Text;
pub use style::Paint;

use crate::engine::detect::{Severity, plural};
use crate::engine::doubt::Doubt;
use crate::engine::findings::{Change, Finding};
use crate::engine::snapshot::{RunVerdict, Snapshot};
use crate::model::{Cost, StackCopies};
use finding::Shown;
use leak_stacks::StackCounts;
use style::{Tone, printable};

/// Writes what there is to see after an interval: the findings that changed, and the table.
///
/// Information alone is not worth a line here: idle pools make some all the time. The report at
/// the end has it.
///
/// # Errors
/// What `out` returns.
pub fn write_interval(
    out: &mut impl io::Write,
    paint: Paint,
    snapshot: &Snapshot<'_>,
    changes: &[Change],
) -> io::Result<()> {
    let time = snapshot.clock.rfc3339(snapshot.now);
    writeln!(out, "{}", paint.tone(Tone::Dim, &time))?;
    columns::write(out, paint, snapshot)?;
    older::write(out, paint, snapshot)?;
    waiting::write(out, paint, snapshot)?;
    servers::write_briefly(out, paint, snapshot)?;
    pools::write(out, paint, snapshot)?;
    refused::write(out, paint, snapshot)?;
    let mut telling: Vec<&Change> = changes
        .iter()
        .filter(|change| change.finding().verdict.severity > Severity::Info)
        .collect();
    telling.sort_by_key(|change| std::cmp::Reverse(change.finding().verdict.connections.len()));
    let mut shown = Shown::new();
    for change in telling {
        writeln!(out)?;
        match change {
            Change::Opened(new) => finding::write(out, paint, snapshot, new, &mut shown)?,
            Change::Updated(changed, why) => {
                finding::write_headline(out, paint, snapshot, changed)?;
                finding::write_culprit(out, paint, snapshot, changed)?;
                finding::write_evidence(out, changed)?;
                if let Some(why) = why {
                    writeln!(out, "  left: {why}")?;
                }
            }
            Change::Retracted(retracted, why) => {
                finding::write_retracted(out, paint, snapshot, retracted, Some(why))?;
            }
        }
    }
    writeln!(out)
}

/// Writes the report at the end.
///
/// # Errors
/// What `out` returns.
pub fn write_report(
    out: &mut impl io::Write,
    paint: Paint,
    snapshot: &Snapshot<'_>,
) -> io::Result<()> {
    let run = snapshot.run;
    let title = format!(
        "pgsocktrace {} on {}, Linux {}",
        printable(&run.version),
        printable(&run.host),
        printable(&run.kernel)
    );
    writeln!(out, "{}", paint.tone(Tone::Strong, &title))?;
    let lasted = crate::engine::detect::duration(snapshot.lasted());
    writeln!(
        out,
        "{} until {}, {lasted}",
        crate::model::time::rfc3339(run.started_at),
        snapshot.clock.rfc3339(snapshot.now)
    )?;
    writeln!(out)?;
    columns::write(out, paint, snapshot)?;
    older::write(out, paint, snapshot)?;
    waiting::write(out, paint, snapshot)?;
    servers::write(out, paint, snapshot)?;
    pools::write(out, paint, snapshot)?;
    refused::write(out, paint, snapshot)?;
    let open = snapshot.ledger.open();
    let (grave, light): (Vec<&Finding>, Vec<&Finding>) =
        open.into_iter().partition(|finding| finding.verdict.severity > Severity::Info);
    let mut shown = Shown::new();
    for one in &grave {
        writeln!(out)?;
        finding::write(out, paint, snapshot, one, &mut shown)?;
    }
    if !light.is_empty() {
        writeln!(out)?;
    }
    for one in light {
        finding::write_headline(out, paint, snapshot, one)?;
        finding::write_culprit(out, paint, snapshot, one)?;
        finding::write_evidence(out, one)?;
    }
    let retracted: Vec<&Finding> = snapshot
        .ledger
        .retracted()
        .filter(|finding| finding.verdict.severity > Severity::Info)
        .collect();
    if !retracted.is_empty() {
        writeln!(out)?;
    }
    for one in retracted {
        finding::write_retracted(out, paint, snapshot, one, None)?;
    }
    writeln!(out)?;
    write_summary(out, paint, snapshot)
}

fn write_summary(
    out: &mut impl io::Write,
    paint: Paint,
    snapshot: &Snapshot<'_>,
) -> io::Result<()> {
    let RunVerdict { leaks, suspects, unknown_older } = snapshot.verdict();
    let retracted: u64 = snapshot.ledger.counts().map(|(_, count)| count.retracted).sum();
    let verdict = match (leaks, unknown_older) {
        (0, 0) if suspects == 0 => paint.tone(Tone::Good, "no leak found"),
        (0, 0) => paint.tone(Tone::Suspect, "no leak found"),
        (0, unknown) => {
            let unknown = plural(unknown, "silent connection");
            let told = format!("cannot tell: nothing is known of {unknown} older than the trace");
            paint.tone(Tone::Suspect, &told)
        }
        (leaks, 0) => paint.tone(Tone::Leak, &plural(leaks, "leak")),
        (leaks, unknown) => {
            let (leaks, unknown) = (plural(leaks, "leak"), plural(unknown, "older connection"));
            paint.tone(Tone::Leak, &format!("{leaks} (and {unknown} of which nothing is known)"))
        }
    };
    let verdict = match Doubt::about(snapshot) {
        Some(doubt @ Doubt::TornDown { .. }) => paint.tone(Tone::Suspect, &doubt.to_string()),
        _ => verdict,
    };
    let suspects = plural(suspects, "suspect");
    let retracted = plural_of(retracted, "finding");
    writeln!(out, "{verdict}, {suspects}; {retracted} retracted")?;
    for hidden in snapshot.suppressed.iter().filter(|one| one.count() > 0) {
        let (count, why) = (plural(hidden.count(), "finding"), printable(&hidden.rule.why));
        writeln!(out, "{count} suppressed: {why}")?;
    }
    let health = snapshot.health;
    let losses = snapshot.table.losses();
    let loss = format!("{} lost", health.lost);
    let loss = if health.lost > 0 { paint.tone(Tone::Suspect, &loss) } else { loss };
    writeln!(
        out,
        "{} received, {loss}, {} reconciled; {} skipped",
        plural_of(health.received, "event"),
        losses.reconciled(),
        plural_of(health.stacks_skipped, "stack")
    )?;
    write_stack_quality(out, paint, &health.stacks)?;
    write_copies(out, paint, &health.copies)?;
    if health.skipped_runs > 0 {
        let runs = plural_of(health.skipped_runs, "run");
        let note = format!("the kernel skipped {runs} of the tracing programs, for any socket");
        writeln!(out, "{}", paint.tone(Tone::Dim, &note))?;
    }
    write_cost(out, paint, &health.cost)?;
    if losses.refused + losses.untracked > 0 {
        let note = format!(
            "the table was full: {} connections refused, {} not tracked at the last inventory",
            losses.refused, losses.untracked
        );
        writeln!(out, "{}", paint.tone(Tone::Suspect, &note))?;
    }
    if losses.folded > 0 {
        let note = format!(
            "too many servers to tell apart: growth was not checked for {}",
            plural_of(losses.folded, "connection")
        );
        writeln!(out, "{}", paint.tone(Tone::Suspect, &note))?;
    }
    Ok(())
}

/// One line, when there are stacks that are not complete, with the reasons.
fn write_stack_quality(
    out: &mut impl io::Write,
    paint: Paint,
    counts: &StackCounts,
) -> io::Result<()> {
    let StackCounts { complete, truncated, none, .. } = *counts;
    if truncated + none == 0 {
        return Ok(());
    }
    let reasons: Vec<_> =
        counts.reasons().map(|(reason, count)| format!("{count} {}", reason.describe())).collect();
    let note = format!(
        "stacks: {complete} complete, {truncated} truncated, {none} none ({})",
        reasons.join("; ")
    );
    writeln!(out, "{}", paint.tone(Tone::Dim, &note))
}

/// One line, when not every stack was copied.
fn write_copies(out: &mut impl io::Write, paint: Paint, copies: &StackCopies) -> io::Result<()> {
    let StackCopies { recorded: _, over_budget, no_slot, unreadable } = *copies;
    let Some(share) = copies.share().filter(|share| *share < 1.0) else { return Ok(()) };
    let reasons = [
        (over_budget, "over the budget (--stack-budget)"),
        (no_slot, "no room left (--stack-slots, or memory)"),
        (unreadable, "unreadable"),
    ];
    let reasons = reasons.iter().filter(|(count, _)| *count > 0);
    let reasons: Vec<_> = reasons.map(|(count, why)| format!("{count} {why}")).collect();
    let share = share * 100.0;
    let note = format!("{share:.1} % of stacks recorded; missed: {}", reasons.join("; "));
    writeln!(out, "{}", paint.tone(Tone::Dim, &note))
}

/// One line, when there is anything to tell.
fn write_cost(out: &mut impl io::Write, paint: Paint, cost: &Cost) -> io::Result<()> {
    let Some(collector) = cost.collector_cores() else { return Ok(()) };
    let percent = |cores: f64| format!("{:.2} %", cores * 100.0);
    let note = match cost.kernel_cores() {
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
    };
    writeln!(out, "{}", paint.tone(Tone::Dim, &note))
}

fn plural_of(count: u64, what: &str) -> String {
    plural(usize::try_from(count).unwrap_or(usize::MAX), what)
}

#[cfg(test)]
mod tests;
