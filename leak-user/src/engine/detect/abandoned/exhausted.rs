//! A pool of which every connection is idle: it is exhausted by a leak, or has nothing to do. From
//! outside they look alike.

use std::fmt;
use std::time::Duration;

use crate::engine::detect::abandoned::candidate::{Candidate, STEPS, is_whole_pool};
use crate::engine::detect::code::CodePath;
use crate::engine::detect::{Evidence, Numbers, Silence, Span, View, plural};
use crate::engine::table::Connection;
use crate::model::Timestamp;

/// Connections that fell silent further apart than this were not one burst.
const ONE_BY_ONE: Duration = Duration::from_millis(100);
/// How many times other code must have used the rest of the pool while it was being lost.
const INTERLUDES: usize = 2;
/// A pool that fell silent in less time was only warming up.
const LEAST_TIME: Duration = Duration::from_secs(1);

/// Whether all of a pool's connections fell silent one by one, after the same code. A leaking pool
/// at its cap ends like that and cannot grow; so does a pool with nothing to do.
///
/// The code is unknown for connections that fell silent before the trace began.
pub(super) fn fell_silent_one_by_one(view: &View<'_>, pool: &[Candidate<'_>]) -> bool {
    let Some(first) = pool.first() else { return false };
    let mut moments: Vec<Timestamp> =
        pool.iter().map(|candidate| candidate.connection.silent_since()).collect();
    moments.sort_unstable();
    let after_the_same = first.path.is_some()
        && pool.iter().all(|candidate| {
            // A startup message and nothing else is no use.
            candidate.path == first.path && candidate.connection.requests.count > 1
        });
    pool.len() >= STEPS
        && is_whole_pool(view, pool)
        && (after_the_same || pool.iter().all(|candidate| is_late(view, candidate.connection)))
        && moments.is_sorted_by(|one, next| next.since(*one) >= ONE_BY_ONE)
        && took(pool) >= LEAST_TIME
}

/// Time from the first connection's falling silent to the last's.
pub(super) fn took<'a, 'b: 'a>(pool: impl IntoIterator<Item = &'a Candidate<'b>>) -> Duration {
    let silent_since = pool.into_iter().map(|candidate| candidate.connection.silent_since());
    let ends = silent_since.fold(None, |ends: Option<(Timestamp, Timestamp)>, at| {
        Some(ends.map_or((at, at), |(first, last)| (first.min(at), last.max(at))))
    });
    ends.map_or(Duration::ZERO, |(first, last)| last.since(first))
}

/// Whether all of a pool fell silent one by one, each connection after code that was never seen to
/// give one back, while other code used the rest in between.
///
/// A resting pool was last used by whatever code uses it all along. Only a pool that does not get
/// its connections back ends with every connection last used by code that never gives back, with
/// other code at work in between.
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

/// How many times other code used the pool between two of these last uses.
fn interludes(pool: &[Candidate<'_>], others: &[(Timestamp, CodePath)]) -> usize {
    let mut moments: Vec<Timestamp> =
        pool.iter().map(|candidate| candidate.connection.silent_since()).collect();
    moments.sort_unstable();
    let between = |pair: &&[Timestamp]| match pair {
        [one, next] => others.iter().any(|(at, _)| at > one && at < next),
        _ => false,
    };
    moments.windows(2).filter(between).count()
}

/// A pool of which nothing is left.
#[derive(Debug)]
pub(super) struct Emptied {
    connections: usize,
    silence: Silence,
}

impl Emptied {
    pub(super) fn new(view: &View<'_>, members: &[&Connection], now: Timestamp) -> Self {
        Self { connections: members.len(), silence: view.silence(members, now) }
    }
}

impl Evidence for Emptied {
    fn numbers(&self) -> Numbers {
        Numbers::of(self.connections).silence(self.silence)
    }
}

impl fmt::Display for Emptied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "all {} of the pool idle and {}, one after the other by code that never gave one back, \
             while other code used the rest; nothing of the pool is left",
            plural(self.connections, "connection"),
            self.silence,
        )
    }
}

/// Whether a connection was already silent when the trace began, and has been since.
fn is_late(view: &View<'_>, connection: &Connection) -> bool {
    connection.opened_before_trace()
        && view.table().began().is_some_and(|began| connection.silent_since() < began)
}

/// A pool that is at rest or exhausted.
#[derive(Debug)]
pub(super) struct Resting {
    connections: usize,
    silence: Silence,
    /// How long they had been silent when the trace began, if all of them were.
    before_trace: Option<Span>,
}

impl Resting {
    pub(super) fn new(view: &View<'_>, members: &[&Connection], now: Timestamp) -> Self {
        let began = view.table().began().unwrap_or_default();
        let before = || members.iter().map(|member| began.since(member.silent_since())).collect();
        Self {
            connections: members.len(),
            silence: view.silence(members, now),
            before_trace: members.iter().all(|member| is_late(view, member)).then(before),
        }
    }
}

impl Evidence for Resting {
    fn numbers(&self) -> Numbers {
        let numbers = Numbers::of(self.connections).silence(self.silence);
        match self.before_trace {
            Some(span) => {
                numbers.span("silent_before_trace_min_ms", "silent_before_trace_max_ms", span)
            }
            None => numbers,
        }
    }
}

impl fmt::Display for Resting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, silence, before_trace } = self;
        let connections = plural(*connections, "connection");
        write!(f, "all {connections} of the pool idle and {silence}, one after the other")?;
        match before_trace {
            Some(before) => write!(
                f,
                ", since {before} before the trace began, and none was opened since; the pool may \
                 be exhausted"
            ),
            None => f.write_str(" by the same code; the pool may be exhausted"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::engine::detect::testing::{THRESHOLDS, find, judge, judge_with};
    use crate::engine::detect::{Reason, Severity, Stacks};
    use crate::engine::testing::World;
    use crate::model::{StackId, WireState};
    use leak_stacks::{Language, Quality, Stack};

    /// A pool of six that loses one every 10 s, while other code uses the last that is left. Each
    /// user asks whether its connection still works before it uses it, and waits that long in
    /// between.
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
        assert!(
            found[0].evidence.to_string().ends_with("nothing of the pool is left"),
            "{found:?}"
        );
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
            callers: Vec::new(),
        };
        let stacks = Stacks::from([(library.id, Arc::new(library))]);
        let verdicts = judge_with(&world, &stacks, &THRESHOLDS, 130.0);
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
