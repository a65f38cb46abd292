//! The report at the end: the answer first, then why, then the table.

use std::io;

use crate::engine::detect::{Severity, plural};
use crate::engine::findings::Finding;
use crate::engine::snapshot::Snapshot;
use crate::outputs::text::causes::Cause;
use crate::outputs::text::entry::Called;
use crate::outputs::text::line::Line;
use crate::outputs::text::look::Look;
use crate::outputs::text::style::Tone;
use crate::outputs::text::{causes, columns, entry, head, health, notes, plural_of, servers};

/// Most findings that are only information, and most retracted ones, that are told.
const MAX_LIGHT: usize = 5;
const MAX_RETRACTED: usize = 10;

/// Writes the report.
///
/// # Errors
/// What `out` returns.
pub fn write_report(
    out: &mut impl io::Write,
    look: &Look,
    snapshot: &Snapshot<'_>,
) -> io::Result<()> {
    head::write(out, look, snapshot)?;
    let causes = causes::of(snapshot, snapshot.ledger.open());
    let (grave, light): (Vec<_>, Vec<_>) =
        causes.into_iter().partition(|cause| cause.severity() > Severity::Info);
    for (index, cause) in grave.iter().enumerate() {
        writeln!(out)?;
        entry::write(out, look, snapshot, cause, Called::Number(index + 1))?;
    }
    let light: Vec<&Finding> = light.iter().flat_map(Cause::all).collect();
    let notes = notes::all(snapshot, look);
    if !notes.is_empty() || !light.is_empty() {
        writeln!(out)?;
    }
    notes.iter().try_for_each(|note| note.write(out, look))?;
    write_light(out, look, snapshot, &light, grave.len())?;
    writeln!(out)?;
    columns::write(out, look, snapshot)?;
    servers::write(out, look.paint, snapshot)?;
    writeln!(out)?;
    write_retracted(out, look, snapshot)?;
    health::write(out, look, snapshot)?;
    write_verdict(out, look, snapshot)
}

/// One line each, and how many more there are.
fn write_light(
    out: &mut impl io::Write,
    look: &Look,
    snapshot: &Snapshot<'_>,
    light: &[&Finding],
    before: usize,
) -> io::Result<()> {
    let most = if look.verbose { usize::MAX } else { MAX_LIGHT };
    for (index, finding) in light.iter().take(most).enumerate() {
        let number = Called::Number(before + index + 1);
        entry::brief(look, snapshot, finding, number).write(out, look)?;
    }
    more(out, light.len().saturating_sub(most), "; -v lists them")
}

fn write_retracted(
    out: &mut impl io::Write,
    look: &Look,
    snapshot: &Snapshot<'_>,
) -> io::Result<()> {
    let retracted: Vec<_> = snapshot
        .ledger
        .retracted()
        .filter(|finding| finding.verdict.severity > Severity::Info)
        .collect();
    let most = if look.verbose { usize::MAX } else { MAX_RETRACTED };
    for finding in retracted.iter().take(most) {
        let at = finding.retracted_at.map(|at| look.zone.time(snapshot.clock.wall(at)));
        let when = at.map(|at| format!("at {at}")).unwrap_or_default();
        let line = Line::new(0, 2).toned(Tone::Good, "retracted").text(&when);
        entry::retracted(line, look, snapshot, finding).write(out, look)?;
    }
    more(out, retracted.len().saturating_sub(most), "; -v lists them")
}

fn more(out: &mut impl io::Write, count: usize, how: &str) -> io::Result<()> {
    if count > 0 { writeln!(out, "and {count} more{how}") } else { Ok(()) }
}

/// The verdict once more, where those look who see only the end.
fn write_verdict(out: &mut impl io::Write, look: &Look, snapshot: &Snapshot<'_>) -> io::Result<()> {
    for hidden in snapshot.suppressed.iter().filter(|one| one.count() > 0) {
        let count = plural(hidden.count(), "finding");
        Line::new(0, 2)
            .text(&format!("{count} suppressed: {}", hidden.rule.why))
            .write(out, look)?;
    }
    let retracted: u64 = snapshot.ledger.counts().map(|(_, count)| count.retracted).sum();
    let (tone, verdict) = head::verdict(snapshot);
    let line = Line::new(0, 2).toned(tone, &verdict);
    let line = match retracted {
        0 => line,
        some => line.text(&format!("({} retracted)", plural_of(some, "finding"))),
    };
    line.write(out, look)
}
