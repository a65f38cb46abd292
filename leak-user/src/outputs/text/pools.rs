//! Programs' own pools, by their own numbers.

use std::cmp::Reverse;
use std::io;

use crate::engine::snapshot::Snapshot;
use crate::outputs::text::style::{Paint, Tone, printable};

/// Most pools that are told.
const MAX_LINES: usize = 20;

/// One line for each pool, those first that somebody waits for.
pub(super) fn write(
    out: &mut impl io::Write,
    paint: Paint,
    snapshot: &Snapshot<'_>,
) -> io::Result<()> {
    let known = snapshot.program_pools().filter_map(|read| Some((read, read.pool.numbers?)));
    let mut pools: Vec<_> = known.collect();
    pools.sort_by_key(|(read, numbers)| {
        (Reverse(numbers.waiting), Reverse(numbers.in_use()), read.process, read.pool.number)
    });
    let more = pools.len().saturating_sub(MAX_LINES);
    for (read, numbers) in pools.into_iter().take(MAX_LINES) {
        let comm = snapshot.comm(read.process).map_or_else(|| "?".to_owned(), printable);
        let of = numbers.max_open.map(|most| format!(" of {most}")).unwrap_or_default();
        let waiting = numbers.waiting.map(|count| format!(", {count} waiting"));
        let line = format!(
            "pool {} of {comm} ({}): {}{of} in use, {} idle{}",
            printable(&read.pool.kind),
            read.process.pid,
            numbers.in_use(),
            numbers.idle,
            waiting.unwrap_or_default()
        );
        let is_short = numbers.waiting.is_some_and(|count| count > 0);
        let tone = if is_short { Tone::Suspect } else { Tone::Dim };
        writeln!(out, "{}", paint.tone(tone, &line))?;
    }
    if more > 0 {
        writeln!(out, "… and {more} more pools")?;
    }
    Ok(())
}
