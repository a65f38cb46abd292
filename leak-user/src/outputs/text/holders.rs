//! Who holds the slots of a server that has none left.

use std::io;

use crate::engine::detect::{Holder, plural};
use crate::engine::findings::Finding;
use crate::engine::snapshot::Snapshot;
use crate::outputs::text::line::Line;
use crate::outputs::text::look::Look;
use crate::outputs::text::place::place;
use crate::outputs::text::style::printable;

/// Most groups that are told; the JSON report has more.
const MAX_LINES: usize = 12;

/// One line for each process and code that holds some, the most first.
pub(super) fn write(
    out: &mut impl io::Write,
    look: &Look,
    snapshot: &Snapshot<'_>,
    finding: &Finding,
) -> io::Result<()> {
    let Some(full) = finding.verdict.evidence.no_slot_left() else { return Ok(()) };
    let held: usize = full.holders.iter().map(|holder| holder.count).sum();
    if held == 0 {
        return writeln!(out, "  no traced process held any of its slots");
    }
    writeln!(out, "  traced processes held {}:", plural(held, "slot"))?;
    for holder in full.holders.iter().take(MAX_LINES) {
        let comm = snapshot.comm(holder.process).map_or_else(|| "?".to_owned(), printable);
        let code = snapshot.frame(holder.stack.as_ref(), holder.culprit);
        let code = code.map_or_else(|| "code unknown".to_owned(), |frame| place(frame, look));
        let (pid, count) = (holder.process.pid, holder.count);
        let text = format!("{comm} ({pid}){}: {code}", states(holder));
        Line::labelled(4, None, &format!("{count:>3}"), 3).text(&text).write(out, look)?;
    }
    let more = full.holders.len().saturating_sub(MAX_LINES);
    if more > 0 {
        writeln!(out, "         … and {more} more groups")?;
    }
    Ok(())
}

/// ", 40 in transaction, 55 silent".
fn states(holder: &Holder) -> String {
    let Holder { silent, busy, in_transaction, .. } = *holder;
    let states = [(in_transaction, "in transaction"), (busy, "busy"), (silent, "silent")];
    let states = states.iter().filter(|(count, _)| *count > 0);
    states.map(|(count, state)| format!(", {count} {state}")).collect()
}
