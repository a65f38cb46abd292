//! The trace on a terminal: what is so now, redrawn in place.

use std::io;

use crate::engine::detect::Severity;
use crate::engine::snapshot::Snapshot;
use crate::outputs::text::entry::{self, Called};
use crate::outputs::text::line::Line;
use crate::outputs::text::look::Look;
use crate::outputs::text::style::Tone;
use crate::outputs::text::{causes, columns, head, notes, servers};

/// Erases from the cursor's line to the end of the screen. Its first line is erased apart: some
/// terminals keep what was on a screen that is erased all at once.
const CLEAR: &str = "\r\x1b[K\n\x1b[J\x1b[A";

/// Erases what was drawn last.
pub(super) fn clear(out: &mut impl io::Write) -> io::Result<()> {
    write!(out, "{CLEAR}")
}

/// Draws what is so now, no more than `height` lines, over what was drawn before.
///
/// The cursor is left where the drawing began: whatever else is written to the terminal, such as
/// the tool's own log, stands there, and the next drawing follows it.
pub(super) fn draw(
    out: &mut impl io::Write,
    look: &Look,
    snapshot: &Snapshot<'_>,
    height: usize,
) -> io::Result<()> {
    let mut drawn = Vec::new();
    write(&mut drawn, look, snapshot)?;
    let drawn = String::from_utf8_lossy(&drawn);
    clear(out)?;
    // The line of the cursor is the terminal's last one if all others are full.
    let mut lines = 0;
    for line in drawn.lines().take(height.saturating_sub(1)) {
        writeln!(out, "{line}")?;
        lines += 1;
    }
    if lines > 0 { write!(out, "\x1b[{lines}A") } else { Ok(()) }
}

fn write(out: &mut impl io::Write, look: &Look, snapshot: &Snapshot<'_>) -> io::Result<()> {
    let time = look.zone.time(snapshot.clock.wall(snapshot.now));
    // The log's next line takes this one.
    writeln!(out)?;
    Line::new(0, 2)
        .toned(Tone::Strong, "pgsocktrace")
        .text(&head::watched(snapshot))
        .apart(&format!("{time}, Ctrl-C ends with the report"))
        .write(out, look)?;
    let (tone, verdict) = head::verdict(snapshot);
    Line::new(2, 2).toned(tone, &verdict).write(out, look)?;
    servers::write_briefly(out, look.paint, snapshot)?;
    let grave = causes::of(snapshot, snapshot.ledger.open()).into_iter();
    let grave: Vec<_> = grave.filter(|cause| cause.severity() > Severity::Info).collect();
    for (index, cause) in grave.iter().enumerate() {
        let number = Called::Number(index + 1);
        entry::brief(look, snapshot, cause.lead, number).write(out, look)?;
    }
    notes::all(snapshot, look).iter().try_for_each(|note| note.write(out, look))?;
    writeln!(out)?;
    columns::write(out, look, snapshot)
}
