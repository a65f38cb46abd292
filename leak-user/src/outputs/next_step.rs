//! What to do about a finding, in plain words.

use crate::engine::detect::{Reason, Severity, StackOf, Verdict};
use leak_stacks::Frame;

/// Where to look and what for. `None` when nothing is to be done. `culprit` is the frame of the
/// verdict's stack that belongs to the application.
pub(super) fn next_step(verdict: &Verdict, culprit: Option<&Frame>) -> Option<String> {
    let place = place(verdict, culprit);
    let is_leak = verdict.severity == Severity::Leak;
    Some(match verdict.reason {
        Reason::Growing => format!(
            "is each connection closed, or given back to its pool, {place}? Look at error paths and \
             early returns too; is a new pool made for each request?"
        ),
        Reason::Abandoned if is_leak => format!(
            "are rows, statements and the connection closed or given back {place}, on error paths \
             and early returns too? Close them where they are opened: defer, with, \
             try-with-resources, finally"
        ),
        Reason::Abandoned => format!(
            "do requests wait for a connection now? If so, see whether connections are given back \
             {place}; if not, the pool is only idle"
        ),
        Reason::IdleInTransaction => format!(
            "is the transaction committed or rolled back {place}, on error paths and early returns \
             too? It holds locks and keeps vacuum from cleaning up"
        ),
        Reason::UnreadResult => format!(
            "is the result read to its end, or closed, {place}? Stopping in the middle leaves the \
             connection unusable"
        ),
        Reason::CloseWait => "does the program notice that the server has closed? Have the pool \
             check connections before use and close broken ones; see the server's log for why"
            .to_owned(),
        Reason::ConnectStuck => "is the server reachable, and does it accept connections? Set a \
             timeout for connecting"
            .to_owned(),
        Reason::AwaitingResponse => "see in pg_stat_activity what the server is at: a long query, \
             or a lock; statement_timeout bounds it"
            .to_owned(),
        Reason::Silent if verdict.severity > Severity::Info => format!(
            "is COPY ended {place}, on error paths too? Until then the server waits, in a transaction"
        ),
        Reason::Silent => return None,
    })
}

/// "in refund_order (shop.c:120)".
fn place(verdict: &Verdict, culprit: Option<&Frame>) -> String {
    let named = culprit.and_then(|frame| Some((frame, frame.function.as_ref()?)));
    let Some((frame, function)) = named else {
        let role = match verdict.stack_of {
            StackOf::OpenedBy => "where they were opened",
            StackOf::LastUsedBy => "where they were last used",
        };
        return role.to_owned();
    };
    match (&frame.file, frame.line) {
        (Some(file), Some(line)) => {
            let name = file.rsplit('/').next().unwrap_or(file);
            format!("in {function} ({name}:{line})")
        }
        _ => format!("in {function}"),
    }
}

#[cfg(test)]
mod tests {
    use crate::outputs::testing::Run;

    use super::*;

    #[test]
    fn every_reason_but_silence_has_one_and_it_names_the_place() {
        let mut run = Run::new();
        run.turn(130.0);
        let verdict = run.ledger.open()[0].verdict.clone();
        let frame = Frame {
            function: Some("refund".into()),
            module: None,
            file: Some("/srv/shop/pay.py".into()),
            line: Some(7),
            address: 0,
        };
        for reason in Reason::ALL {
            let verdict = Verdict { reason, ..verdict.clone() };
            let step = next_step(&verdict, Some(&frame)).unwrap_or_default();
            let names = [Reason::CloseWait, Reason::ConnectStuck, Reason::AwaitingResponse];
            let is_placed = step.contains("in refund (pay.py:7)");
            assert_eq!(is_placed, !names.contains(&reason), "{reason}: {step}");
        }
        let step = next_step(&verdict, None).unwrap();
        assert!(step.contains("where they were last used"), "{step}");
        let silent = Verdict { reason: Reason::Silent, severity: Severity::Info, ..verdict };
        assert_eq!(next_step(&silent, None), None);
    }
}
