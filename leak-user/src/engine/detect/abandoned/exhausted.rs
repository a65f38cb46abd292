//! A pool of which nothing is left, or one that has nothing to do: from outside they look alike.

use std::time::Duration;

use crate::engine::detect::View;
use crate::engine::detect::abandoned::{Candidate, STEPS, is_whole_pool};
use crate::engine::detect::evidence::{plural, span};
use crate::engine::table::Connection;
use crate::model::Timestamp;

/// What lies further apart was not one burst.
const ONE_BY_ONE: Duration = Duration::from_millis(100);
/// So often other code must have used the rest of a pool while it was lost.
const INTERLUDES: usize = 2;
/// What took less long was the warming up of a pool.
const LEAST_TIME: Duration = Duration::from_secs(1);

/// Whether all of a pool's connections fell silent, one by one and after the same code: a pool at its
/// cap that leaks comes to that, and cannot grow. A pool with nothing to do may, too.
///
/// Of what fell silent before the trace began nobody knows the code.
pub(super) fn fell_silent_one_by_one(view: &View<'_>, pool: &[Candidate<'_>]) -> bool {
    let Some(first) = pool.first() else { return false };
    let mut moments: Vec<Timestamp> =
        pool.iter().map(|candidate| candidate.connection.silent_since()).collect();
    moments.sort_unstable();
    let after_the_same = first.path.is_some()
        && pool.iter().all(|candidate| {
            // A startup message and nothing else is no use.
            candidate.path == first.path && candidate.connection.requests > 1
        });
    pool.len() >= STEPS
        && is_whole_pool(view, pool)
        && (after_the_same || pool.iter().all(|candidate| is_late(view, candidate.connection)))
        && moments.is_sorted_by(|one, next| next.since(*one) >= ONE_BY_ONE)
        && took(pool) >= LEAST_TIME
}

/// From when the first fell silent until the last did.
pub(super) fn took<'a, 'b: 'a>(pool: impl IntoIterator<Item = &'a Candidate<'b>>) -> Duration {
    let silent_since = pool.into_iter().map(|candidate| candidate.connection.silent_since());
    let ends = silent_since.fold(None, |ends: Option<(Timestamp, Timestamp)>, at| {
        Some(ends.map_or((at, at), |(first, last)| (first.min(at), last.max(at))))
    });
    ends.map_or(Duration::ZERO, |(first, last)| last.since(first))
}

/// Whether all of a pool fell silent, one by one, each after code that was never seen to give a
/// connection back, while other code went on to use the rest in between.
///
/// A pool that rests was used last by whatever code used it all along. That only such code as never
/// gives back was the last one everywhere, with others at work between its uses, no pool comes to
/// that gets its connections back.
pub(super) fn is_proven(view: &View<'_>, pool: &[Candidate<'_>]) -> bool {
    let Some(first) = pool.first() else { return false };
    if pool.len() < STEPS || !is_whole_pool(view, pool) {
        return false;
    }
    let given_back = view.given_back(first.connection);
    let never_given_back = |candidate: &Candidate<'_>| {
        view.blames(candidate.connection)
            && candidate
                .path
                .as_ref()
                .is_some_and(|path| given_back.iter().all(|(_, given)| given != path))
    };
    // What falls silent within a burst, a round of keepalives is one, does so together.
    pool.iter().all(never_given_back)
        && interludes(pool, &given_back) >= INTERLUDES
        && took(pool) >= view.burst()
}

/// After how many of a pool's last uses, but before the next, other code used it.
fn interludes(pool: &[Candidate<'_>], others: &[(Timestamp, String)]) -> usize {
    let mut moments: Vec<Timestamp> =
        pool.iter().map(|candidate| candidate.connection.silent_since()).collect();
    moments.sort_unstable();
    let between = |pair: &&[Timestamp]| match pair {
        [one, next] => others.iter().any(|(at, _)| at > one && at < next),
        _ => false,
    };
    moments.windows(2).filter(between).count()
}

/// Says so.
pub(super) fn proof(view: &View<'_>, members: &[&Connection], now: Timestamp) -> String {
    format!(
        "all {} of the pool idle and {}, one after the other by code that never gave one back, while \
         other code used the rest; nothing of the pool is left",
        plural(members.len(), "connection"),
        view.silence(members, now),
    )
}

/// Whether a connection was silent when the trace began, and since.
fn is_late(view: &View<'_>, connection: &Connection) -> bool {
    connection.opened_before_trace()
        && view.table().began().is_some_and(|began| connection.silent_since() < began)
}

/// Says so.
pub(super) fn evidence(view: &View<'_>, members: &[&Connection], now: Timestamp) -> String {
    let silence = view.silence(members, now);
    if members.iter().all(|member| is_late(view, member)) {
        let began = view.table().began().unwrap_or_default();
        let before = span(members.iter().map(|member| began.since(member.silent_since())));
        return format!(
            "all {} of the pool idle and {silence}, one after the other, since {before} before the \
             trace began, and none was opened since; the pool may be exhausted",
            plural(members.len(), "connection"),
        );
    }
    format!(
        "all {} of the pool idle and {silence}, one after the other by the same code; the pool may \
         be exhausted",
        plural(members.len(), "connection"),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::engine::detect::testing::{THRESHOLDS, find, judge};
    use crate::engine::detect::{Reason, Severity, Stacks, Standing, evaluate};
    use crate::engine::table::testing::{World, secs};
    use crate::model::{StackId, WireState};
    use leak_stacks::{Language, Quality, Stack};

    /// A pool of six that loses one every 10 s, while other code uses the last that is left. Each user asks
    /// whether its connection still works before it uses it, and waits that long in between.
    fn exhausted(waits: f64, by: &str) -> World {
        ended_by(waits, by, "work")
    }

    /// The same; all that is seen of the other code's uses is who ends them.
    fn ended_by(waits: f64, by: &str, others: &str) -> World {
        let mut world = World::new();
        for number in 0..6 {
            world.open(number, 1.0 + 0.01 * number as f64);
        }
        let mut take = |number: u64, at: f64, by: &str| {
            world.request(number, at, by, WireState::Idle);
            world.request(number, at + waits, by, WireState::Idle);
        };
        for number in 0..6 {
            let at = 10.0 + 10.0 * number as f64;
            take(5, at - 5.0, others);
            take(number, at, by);
        }
        world
    }

    #[test]
    fn a_pool_of_which_nothing_is_left_is_proven() {
        let verdicts = judge(&exhausted(0.05, "leak"), 130.0);
        let found = find(&verdicts, Reason::Abandoned);
        assert_eq!((found[0].severity, found[0].connections.len()), (Severity::Leak, 6));
        assert!(found[0].evidence.ends_with("nothing of the pool is left"), "{found:?}");
    }

    #[test]
    fn a_pool_that_cleans_up_what_it_got_back_gets_some_back() {
        let world = ended_by(0.05, "leak", "cleanup");
        let library = Stack {
            id: StackId::from("cleanup"),
            quality: Quality::Complete,
            truncation: None,
            language: Language::Python,
            frames: Vec::new(),
            culprit: None,
        };
        let stacks = Stacks::from([(library.id, Arc::new(library))]);
        let verdicts = evaluate(&world.table, &stacks, &THRESHOLDS, &Standing::new(), secs(130.0));
        let found = find(&verdicts, Reason::Abandoned);
        assert_eq!((found[0].severity, found[0].connections.len()), (Severity::Leak, 6));
    }

    #[test]
    fn code_that_was_seen_to_give_back_proves_nothing() {
        for (waits, by) in [(9.0, "leak"), (0.05, "work")] {
            let verdicts = judge(&exhausted(waits, by), 140.0);
            let found = find(&verdicts, Reason::Abandoned);
            assert!(found.iter().all(|one| one.severity == Severity::Suspect), "{by}: {found:?}");
        }
    }
}
