//! The trace in a pipe or a log: each change is a line, and a stack is told once.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use crate::engine::detect::Severity;
use crate::engine::findings::{Change, Finding, FindingId};
use crate::engine::snapshot::Snapshot;
use crate::outputs::text::causes::{self, Cause};
use crate::outputs::text::entry::{self, Called};
use crate::outputs::text::line::Line;
use crate::outputs::text::look::Look;
use crate::outputs::text::style::Tone;
use crate::outputs::text::{columns, notes, phrase};

/// What was told already.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// Findings, with how many connections each had.
    counts: BTreeMap<FindingId, usize>,
    /// What notes were about, an interval ago.
    notes: BTreeSet<String>,
    /// The table, in the first interval that has one.
    has_table: bool,
}

impl Journal {
    /// Writes what has changed. Information alone is not worth a line: idle pools make some all the
    /// time. The report at the end has it.
    pub(super) fn write(
        &mut self,
        out: &mut impl io::Write,
        look: &Look,
        snapshot: &Snapshot<'_>,
        changes: &[Change],
    ) -> io::Result<()> {
        let time = look.zone.time(snapshot.clock.wall(snapshot.now));
        if !self.has_table && snapshot.table.connections().next().is_some() {
            self.has_table = true;
            writeln!(out, "{}", look.paint.tone(Tone::Dim, &time))?;
            columns::write(out, look, snapshot)?;
        }
        let is_grave = |finding: &Finding| finding.verdict.severity > Severity::Info;
        let opened = changes.iter().filter_map(|change| match change {
            Change::Opened(new) if is_grave(new) => Some(new),
            _ => None,
        });
        for cause in causes::of(snapshot, opened) {
            self.write_new(out, look, snapshot, &cause, &time)?;
        }
        for change in changes.iter().filter(|change| is_grave(change.finding())) {
            match change {
                Change::Opened(_) => {}
                Change::Updated(changed, left) => {
                    self.write_changed(out, look, snapshot, changed, left.as_deref(), &time)?;
                }
                Change::Retracted(finding, why) => {
                    self.counts.remove(&finding.id);
                    let line = Line::new(0, 2).text(&time).toned(Tone::Good, "retracted");
                    let line = entry::retracted(line, look, snapshot, finding);
                    line.text(&format!("({why})")).write(out, look)?;
                }
            }
        }
        let notes = notes::all(snapshot, look);
        for note in notes.iter().filter(|note| !self.notes.contains(&note.key)) {
            note.write_at(out, look, &time)?;
        }
        self.notes = notes.into_iter().map(|note| note.key).collect();
        Ok(())
    }

    fn write_new(
        &mut self,
        out: &mut impl io::Write,
        look: &Look,
        snapshot: &Snapshot<'_>,
        cause: &Cause<'_>,
        time: &str,
    ) -> io::Result<()> {
        // Of code that has an entry above, the stack stands there.
        let open = causes::of(snapshot, snapshot.ledger.open());
        let same = open.iter().find(|one| one.all().any(|of| of.id == cause.lead.id));
        let same = same.into_iter().flat_map(Cause::all).map(|one| one.id);
        let above = same.filter(|id| self.counts.contains_key(id)).min();
        self.counts.extend(cause.all().map(|new| (new.id, phrase::count(new))));
        match above {
            Some(first) => {
                let line = Line::new(0, 2).text(time);
                let line = told_briefly(line, look, snapshot, cause.lead);
                let evidence = cause.lead.evidence();
                line.text(&format!("(same code as {first}): {evidence}")).write(out, look)
            }
            None => {
                writeln!(out, "{time}")?;
                entry::write(out, look, snapshot, cause, Called::Id)
            }
        }
    }

    fn write_changed(
        &mut self,
        out: &mut impl io::Write,
        look: &Look,
        snapshot: &Snapshot<'_>,
        finding: &Finding,
        left: Option<&str>,
        time: &str,
    ) -> io::Result<()> {
        let count = phrase::count(finding);
        let before = self.counts.insert(finding.id, count).filter(|&before| before != count);
        let severity = phrase::severity(finding);
        let change = before.map(|before| format!("{before}→{count}:")).unwrap_or_default();
        let line = Line::new(0, 2)
            .text(time)
            .toned(entry::tone(finding), &format!("{severity} {}", finding.id))
            .text(&change)
            .text(&phrase::says(snapshot, finding));
        let line = entry::with_code(line, look, snapshot, finding);
        let line = match left {
            Some(left) => line.text(&format!("(left: {left})")),
            None => line,
        };
        line.write(out, look)
    }
}

fn told_briefly(line: Line, look: &Look, snapshot: &Snapshot<'_>, finding: &Finding) -> Line {
    let label = format!("{} {}", phrase::severity(finding), finding.id);
    let line = line.toned(entry::tone(finding), &label).text(&phrase::says(snapshot, finding));
    entry::with_code(line, look, snapshot, finding)
}
