//! What is worth a line beside findings and table.

use std::io;

use crate::outputs::text::line::Line;
use crate::outputs::text::look::Look;
use crate::outputs::text::style::Tone;

/// How wide labels of notes are.
const LABEL: usize = 7;

/// A line that is not a finding.
#[derive(Clone, Debug)]
pub(super) struct Note {
    /// What kind it is.
    pub(super) label: &'static str,
    /// What it says.
    pub(super) text: String,
    /// The same as long as it is about the same, whatever its numbers are.
    pub(super) key: String,
    /// Something may be wrong.
    pub(super) alarms: bool,
}

impl Note {
    pub(super) fn write(&self, out: &mut impl io::Write, look: &Look) -> io::Result<()> {
        let line = Line::labelled(0, Some(self.tone()), self.label, LABEL);
        line.text(&self.text).write(out, look)
    }

    /// The same in a log.
    pub(super) fn write_at(
        &self,
        out: &mut impl io::Write,
        look: &Look,
        time: &str,
    ) -> io::Result<()> {
        let line = Line::new(0, 2).text(time).toned(self.tone(), self.label);
        line.text(&self.text).write(out, look)
    }

    fn tone(&self) -> Tone {
        if self.alarms { Tone::Suspect } else { Tone::Strong }
    }
}
