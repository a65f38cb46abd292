//! A request that the server does not answer.

use std::collections::BTreeMap;
use std::fmt;

use crate::engine::detect::{
    Detector, Evidence, Numbers, Reason, RetractionWords, Severity, Silence, Verdict, View, plural,
};
use crate::engine::table::{Connection, PoolKey};
use crate::model::Timestamp;

/// Fewest connections that wait together.
const LEAST_WAITING: usize = 3;
/// A pool hangs when at least one in so many of its connections waits,
const SHARE: usize = 2;
/// and each for so many times as long as any answer has taken before.
const TIMES_A_WAIT: u32 = 2;

/// Finds connections with a request unanswered for long: a long report, or a lock. The program is
/// waiting, so this is no leak, but it is worth knowing why a connection is silent. When half of a
/// pool waits as its requests have never waited before, the program is about to stand still.
pub(super) struct AwaitingResponse;

impl Detector for AwaitingResponse {
    fn reason(&self) -> Reason {
        Reason::AwaitingResponse
    }

    fn severity(&self) -> Severity {
        Severity::Info
    }

    fn judge(&self, view: &View<'_>, now: Timestamp) -> Vec<Verdict> {
        let mut pools: BTreeMap<PoolKey, Vec<&Connection>> = BTreeMap::new();
        for connection in view.silent_connections(now).filter(|connection| connection.is_busy()) {
            pools.entry(view.table().pool_of(connection).key).or_default().push(connection);
        }
        let (mut hung, mut others) = (Vec::new(), Vec::new());
        for (key, waiting) in pools {
            let pool = view.table().pool(&key);
            let beyond = view.longest_wait(&pool) * TIMES_A_WAIT;
            let lasting = waiting.iter().filter(|one| one.silent_for(now) >= beyond).count();
            let open = usize::try_from(pool.open_now()).unwrap_or_default();
            let hangs = lasting >= LEAST_WAITING && lasting * SHARE >= open;
            if hangs { &mut hung } else { &mut others }.extend(waiting);
        }
        let say = |severity| {
            move |members: &[&Connection]| {
                let connections = members.len();
                let hangs = severity > Severity::Info;
                (severity, Unanswered { connections, hangs, silence: view.silence(members, now) })
            }
        };
        let mut verdicts = view.verdicts(self.reason(), hung, say(Severity::Suspect));
        verdicts.extend(view.verdicts(self.reason(), others, say(self.severity())));
        verdicts
    }

    fn next_step(&self, _severity: Severity, _place: &str) -> Option<String> {
        let step = "see in pg_stat_activity what the server is at: a long query, or a lock; \
                    statement_timeout bounds it";
        Some(step.to_owned())
    }

    fn retraction(&self) -> RetractionWords {
        RetractionWords { moved: "answered", ..RetractionWords::default() }
    }
}

#[derive(Debug)]
struct Unanswered {
    connections: usize,
    /// They are a good part of their pool and wait longer than its requests ever have.
    hangs: bool,
    silence: Silence,
}

impl Evidence for Unanswered {
    fn numbers(&self) -> Numbers {
        Numbers::of(self.connections).silence(self.silence)
    }
}

/// "2 connections await their responses, silent for 291 s (threshold 60 s)".
impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.connections {
            1 => write!(f, "1 connection awaits its response")?,
            more => write!(f, "{} await their responses", plural(more, "connection"))?,
        }
        write!(f, ", {}", self.silence)?;
        if self.hangs {
            f.write_str(": half of their pool or more, and longer than any answer took before")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::detect::testing::judge;
    use crate::engine::testing::World;
    use crate::model::{ConnectionId, WireState};

    #[test]
    fn a_long_report_is_no_leak() {
        let mut world = World::new();
        world.open(1, 1.0);
        world.request(1, 10.0, "report", WireState::Busy);
        // Encrypted, so only the direction of the last bytes tells.
        world.open(2, 1.0);
        world.request(2, 10.0, "report", WireState::Busy);
        world.set(2, |usage| usage.wire.state = WireState::Unknown);
        // The pool grows meanwhile.
        for number in 10..30 {
            world.open(number, 10.0 * number as f64);
        }
        let verdicts = judge(&world, 301.0);
        let found: Vec<_> =
            verdicts.iter().filter(|v| v.connections.contains(&ConnectionId(1))).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].reason, found[0].severity),
            (Reason::AwaitingResponse, Severity::Info)
        );
        assert_eq!(found[0].connections.len(), 2);
        assert_eq!(
            found[0].evidence.to_string(),
            "2 connections await their responses, silent for 291 s (threshold 60 s)"
        );
    }

    #[test]
    fn half_of_a_pool_that_waits_as_never_before_is_suspect() {
        let hung = |waiting: u64, used_to: f64| {
            let mut world = World::new();
            for number in 0..8 {
                world.open(number, 1.0);
            }
            // An answer that takes long, and its like.
            world.request(0, 2.0, "report", WireState::Busy);
            world.set(0, |usage| {
                usage.wire.state = WireState::Idle;
                usage.last_receive = Some(crate::engine::testing::secs(2.0 + used_to));
            });
            for number in 0..waiting {
                world.request(number, 100.0, "report", WireState::Busy);
            }
            let verdicts = judge(&world, 190.0);
            let found = verdicts.into_iter().find(|one| one.reason == Reason::AwaitingResponse);
            let found = found.unwrap();
            (found.severity, found.evidence.to_string())
        };
        let (severity, evidence) = hung(4, 3.0);
        assert_eq!(severity, Severity::Suspect);
        assert!(evidence.ends_with("longer than any answer took before"), "{evidence}");
        assert_eq!(hung(3, 3.0).0, Severity::Info, "less than half");
        assert_eq!(hung(4, 50.0).0, Severity::Info, "no longer than usual");
    }
}
