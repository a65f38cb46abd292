//! All that is worth a line beside findings and table.

use crate::engine::snapshot::Snapshot;
use crate::outputs::text::look::Look;
use crate::outputs::text::note::Note;
use crate::outputs::text::{held, older, pools, refused, waiting};

/// The most urgent first.
pub(super) fn all(snapshot: &Snapshot<'_>, look: &Look) -> Vec<Note> {
    let mut notes = refused::notes(snapshot);
    notes.extend(waiting::notes(snapshot, look));
    notes.extend(held::notes(snapshot, look));
    notes.extend(older::notes(snapshot));
    notes.extend(pools::notes(snapshot));
    notes
}
