//! What relieves a server now, until the program is mended.

use crate::engine::detect::{Reason, Severity};
use crate::engine::findings::Finding;
use crate::engine::snapshot::Snapshot;

/// Most backends that are told at once.
const MAX_BACKENDS: usize = 50;

/// A command that ends the backends of leaked connections; `None` where that would not help, might
/// hit what is in use, or they are not known. PIDs are used again, and a pooler makes up its own:
/// so the server ends only sessions that wait for their client, in the state they were left in.
pub(super) fn told(snapshot: &Snapshot<'_>, finding: &Finding) -> Option<String> {
    let verdict = &finding.verdict;
    let state = match verdict.reason {
        Reason::IdleInTransaction => " and state like 'idle in transaction%'",
        Reason::Abandoned | Reason::UnreadResult => "",
        _ => return None,
    };
    if verdict.severity != Severity::Leak {
        return None;
    }
    let known = verdict.connections.iter().filter_map(|&id| snapshot.table.get(id));
    let mut backends: Vec<u32> = known.filter_map(|known| known.backend_pid()).collect();
    backends.sort_unstable();
    backends.truncate(MAX_BACKENDS);
    if backends.is_empty() {
        return None;
    }
    let backends: Vec<_> = backends.iter().map(u32::to_string).collect();
    Some(format!(
        "psql -c \"select pg_terminate_backend(pid) from pg_stat_activity where pid in ({}){state} \
         and wait_event in ('ClientRead', 'ClientWrite')\"",
        backends.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::WireState;
    use crate::outputs::testing::Run;

    #[test]
    fn only_backends_of_leaks_that_are_known_are_ended() {
        let mut run = Run::new();
        for number in [1, 2] {
            run.world.request(number, 200.0, "leak", WireState::InTransaction);
            run.world.set(number, |usage| usage.wire.backend_pid = Some(70 + number as u32));
        }
        let told_at = |run: &mut Run, at: f64| {
            run.turn(at);
            let snapshot = run.snapshot(at);
            let open = run.ledger.open().into_iter();
            let of = |one: &&Finding| one.verdict.reason == Reason::IdleInTransaction;
            open.filter(of).map(|one| told(&snapshot, one)).collect::<Vec<_>>()
        };
        assert_eq!(told_at(&mut run, 220.0), [None], "a suspect is left alone");
        let command = "psql -c \"select pg_terminate_backend(pid) from pg_stat_activity where pid \
                       in (71, 72) and state like 'idle in transaction%' and wait_event in \
                       ('ClientRead', 'ClientWrite')\"";
        assert_eq!(told_at(&mut run, 270.0), [Some(command.to_owned())]);
        run.world.set(1, |usage| usage.wire.backend_pid = None);
        run.world.set(2, |usage| usage.wire.backend_pid = None);
        assert_eq!(told_at(&mut run, 271.0), [None], "nobody knows which");
    }
}
