//! Who waits for a connection.

use crate::engine::detect::{duration, plural};
use crate::engine::fate::{Fate, Fates, User};
use crate::engine::findings::Finding;
use crate::engine::snapshot::Snapshot;
use crate::engine::table::Waiting;
use crate::outputs::text::look::Look;
use crate::outputs::text::note::Note;
use crate::outputs::text::phrase;
use crate::outputs::text::place::place;
use leak_stacks::{Language, Stack};

/// Most processes that are told.
const MAX_LINES: usize = 10;
/// Most places that are told of one process.
const MAX_PLACES: usize = 3;

/// One line for each process in which somebody waits.
pub(super) fn notes(snapshot: &Snapshot<'_>, look: &Look) -> Vec<Note> {
    let mut all: Vec<_> = snapshot.waiting().filter(|(_, waiting)| waiting.count() > 0).collect();
    all.sort_by_key(|(process, waiting)| (std::cmp::Reverse(waiting.count()), *process));
    let more = all.len().saturating_sub(MAX_LINES);
    let mut notes: Vec<_> = all
        .into_iter()
        .take(MAX_LINES)
        .map(|(process, waiting)| {
            let (count, wait) = subject(snapshot, waiting);
            let longest = waiting.longest_since().map(|since| waiting.at.since(since));
            let longest = duration(longest.unwrap_or_default());
            let text = format!(
                "{count} of {} {wait} for a connection, longest {longest}{}",
                phrase::process(snapshot, process),
                places(snapshot, look, waiting)
            );
            Note { label: "WAITING", text, key: format!("waiting {}", process.pid), alarms: true }
        })
        .collect();
    if more > 0 {
        let text = format!("… and others of {more} more processes");
        notes.push(Note { label: "WAITING", text, key: "waiting, more".into(), alarms: true });
    }
    notes
}

/// "1 goroutine", "waits".
fn subject(snapshot: &Snapshot<'_>, waiting: &Waiting) -> (String, &'static str) {
    let mut stacks = waiting.stacks().filter_map(|id| snapshot.stack(Some(id)));
    let is_go = stacks.next().is_some_and(|stack| stack.language == Language::Go);
    let count = usize::try_from(waiting.count()).unwrap_or(usize::MAX);
    let what = if is_go { "goroutine" } else { "thread" };
    (plural(count, what), if count == 1 { "waits" } else { "wait" })
}

/// ": in pay shop.py:88 (20), ship shop.py:120 (7)".
fn places(snapshot: &Snapshot<'_>, look: &Look, waiting: &Waiting) -> String {
    let told = waiting.waiters.iter().filter_map(|waiters| {
        let place = standing(snapshot.stack(Some(&waiters.stack))?, look)?;
        Some(if waiting.waiters.len() > 1 { format!("{place} ({})", waiters.count) } else { place })
    });
    let told: Vec<String> = told.take(MAX_PLACES).collect();
    let more = waiting.waiters.len().saturating_sub(told.len());
    match (told.is_empty(), more) {
        (true, _) => String::new(),
        (false, 0) => format!(": in {}", told.join(", ")),
        (false, more) => format!(": in {} and {}", told.join(", "), plural(more, "other place")),
    }
}

/// Where in the application a stack stands; elsewhere, if it does not lead through it.
fn standing(stack: &Stack, look: &Look) -> Option<String> {
    let named = || stack.frames.iter().position(|frame| frame.function.is_some());
    stack.frames.get(stack.culprit.or_else(named)?).map(|frame| place(frame, look))
}

/// What became of a finding's connections, where all have the same fate.
pub(super) fn fate(snapshot: &Snapshot<'_>, look: &Look, finding: &Finding) -> Option<String> {
    match finding.verdict.fate {
        Fate::Unknown => None,
        Fate::Lost => Some("lost: the code that used it last has returned".to_owned()),
        Fate::Held => {
            let fates = Fates::new(snapshot.table, snapshot.stacks);
            let mut members =
                finding.verdict.connections.iter().filter_map(|&id| snapshot.table.get(id));
            let (user, place) = members.find_map(|member| {
                let stack = snapshot.stack(Some(&fates.held_at(member)?))?;
                Some((User::of(member)?, standing(stack, look)?))
            })?;
            let user = match user {
                User::Thread(_, tid) => format!("thread {tid}"),
                User::Goroutine(_, number) => format!("goroutine {number}"),
            };
            let more = finding.verdict.connections.len().saturating_sub(1);
            let others = match more {
                0 => String::new(),
                more => format!(", and {}", plural(more, "other")),
            };
            Some(format!("held by {user}, which waits in {place}{others}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::{APP, secs};
    use crate::model::{Event, StackId, Waiters};
    use crate::outputs::testing::Run;

    #[test]
    fn says_how_many_wait_for_how_long_and_where() {
        let mut run = Run::new();
        let told = |run: &Run| {
            let notes = notes(&run.snapshot(190.0), &Look::default());
            notes.into_iter().map(|note| note.text).collect::<String>()
        };
        assert_eq!(told(&run), "");
        let waiters = |count, since, stack: &str| Waiters {
            count,
            since: secs(since),
            stack: StackId::from(stack),
        };
        let mut look = |waiters: Vec<Waiters>| {
            let event = Event::Waiting { process: APP, at: secs(180.0), waiters };
            run.world.apply(&event, secs(180.0));
            told(&run)
        };
        assert_eq!(
            look(vec![waiters(1, 138.0, "leak")]),
            "1 goroutine of shop\\u{1b}[2J (4242) waits for a connection, longest 42 s: in app::report \
             src/report.go:41"
        );
        assert_eq!(
            look(vec![waiters(20, 138.0, "leak"), waiters(7, 170.0, "unknown")]),
            "27 goroutines of shop\\u{1b}[2J (4242) wait for a connection, longest 42 s: in app::report \
             src/report.go:41 (20) and 1 other place"
        );
    }
}
