//! Programs' own pools, by their own numbers.

use std::cmp::Reverse;

use crate::engine::snapshot::Snapshot;
use crate::outputs::text::note::Note;
use crate::outputs::text::phrase;
use crate::outputs::text::style::printable;

/// Most pools that are told.
const MAX_LINES: usize = 20;

/// One line for each pool, those first that somebody waits for.
pub(super) fn notes(snapshot: &Snapshot<'_>) -> Vec<Note> {
    let known = snapshot.program_pools().filter_map(|read| Some((read, read.pool.numbers?)));
    let mut pools: Vec<_> = known.collect();
    pools.sort_by_key(|(read, numbers)| {
        (Reverse(numbers.waiting), Reverse(numbers.in_use()), read.process, read.pool.number)
    });
    let more = pools.len().saturating_sub(MAX_LINES);
    let mut notes: Vec<_> = pools
        .into_iter()
        .take(MAX_LINES)
        .map(|(read, numbers)| {
            let of = numbers.max_open.map(|most| format!(" of {most}")).unwrap_or_default();
            let waiting = numbers.waiting.map(|count| format!(", {count} waiting"));
            let kind = printable(&read.pool.kind);
            let text = format!(
                "{kind} of {}: {}{of} in use, {} idle{}",
                phrase::process(snapshot, read.process),
                numbers.in_use(),
                numbers.idle,
                waiting.unwrap_or_default()
            );
            let alarms = numbers.waiting.is_some_and(|count| count > 0);
            let key = format!("pool {} {} {alarms}", read.process.pid, read.pool.number);
            Note { label: "POOL", text, key, alarms }
        })
        .collect();
    if more > 0 {
        let text = format!("… and {more} more pools");
        notes.push(Note { label: "POOL", text, key: "pools, more".into(), alarms: false });
    }
    notes
}
