//! What a finding says, in a few words.

use crate::engine::detect::{Reason, Severity, Span, duration, plural};
use crate::engine::fate::Fate;
use crate::engine::findings::Finding;
use crate::engine::snapshot::Snapshot;
use crate::model::ProcessKey;
use crate::outputs::text::style::printable;
use leak_stacks::Frame;

/// How many connections it takes to tell how fast more are lost.
const LEAST_FOR_RATE: usize = 3;

/// "21 connections left in a transaction"; "22 connections left in a transaction by chargeCard, 16
/// of them for over 60 s" where younger ones of the same code are known.
pub(super) fn says(snapshot: &Snapshot<'_>, finding: &Finding) -> String {
    let (count, younger) = (count(finding), younger(finding));
    let told = format!("{} {}", plural(count + younger, "connection"), state(finding));
    if younger == 0 {
        return told;
    }
    let culprit = snapshot.culprit(&finding.verdict).and_then(short_function);
    let by = culprit.map(|function| format!(" by {function}")).unwrap_or_default();
    let threshold = duration(snapshot.thresholds.silent_after);
    format!("{told}{by}, {count} of them for over {threshold}")
}

/// How many connections it is about.
pub(super) fn count(finding: &Finding) -> usize {
    let verdict = &finding.verdict;
    let refused = verdict.evidence.no_slot_left().map(|full| full.refused);
    let refused = refused.map(|refused| usize::try_from(refused).unwrap_or(usize::MAX));
    refused.unwrap_or(verdict.connections.len())
}

/// How many more the same code has left, for less long.
pub(super) fn younger(finding: &Finding) -> usize {
    number(finding, "younger").unwrap_or_default()
}

fn number(finding: &Finding, name: &str) -> Option<usize> {
    let numbers = finding.evidence_numbers();
    let (_, number) = numbers.iter().find(|&(known, _)| known == name)?;
    usize::try_from(number).ok()
}

fn state(finding: &Finding) -> &'static str {
    let verdict = &finding.verdict;
    let is_leak = verdict.severity == Severity::Leak;
    match verdict.reason {
        Reason::Growing => "in a pool that keeps growing",
        Reason::Abandoned if is_leak => "taken and not given back",
        Reason::Abandoned => "perhaps not given back",
        Reason::IdleInTransaction if number(finding, "transaction_min_ms").is_some() => {
            "used in an old transaction"
        }
        Reason::IdleInTransaction if verdict.fate == Fate::Held => "held in a transaction",
        Reason::IdleInTransaction => "left in a transaction",
        Reason::UnreadResult => "with results that nobody reads",
        Reason::CloseWait => "closed by the server and not by the process",
        Reason::ConnectStuck => "stuck while connecting",
        Reason::UnclosedAtExit => "still open when the process ended",
        Reason::Refused => "refused: the server has no slot left",
        Reason::AwaitingResponse => "without an answer",
        Reason::Silent => "silent",
    }
}

/// "+10/min, oldest 118 s, newest 67 s": how fast its connections fell silent, and for how long
/// they have been.
pub(super) fn pace(snapshot: &Snapshot<'_>, finding: &Finding) -> Option<String> {
    if finding.verdict.reason == Reason::Refused {
        return None;
    }
    let known = finding.verdict.connections.iter().filter_map(|&id| snapshot.table.get(id));
    let silences: Vec<_> = known.map(|one| one.silent_for(snapshot.now)).collect();
    let ages: Span = silences.iter().copied().collect();
    match silences.len() {
        0 => None,
        1 => Some(format!("for {}", duration(ages.most))),
        count => {
            let ages_told =
                format!("oldest {}, newest {}", duration(ages.most), duration(ages.least));
            let took = ages.most.saturating_sub(ages.least).as_secs_f64();
            // It goes on if the newest is not much older than what counts.
            let goes_on = ages.least < snapshot.thresholds.silent_after.saturating_mul(2);
            if count < LEAST_FOR_RATE || took < 1.0 || !goes_on {
                return Some(ages_told);
            }
            #[expect(clippy::cast_precision_loss, reason = "a rate needs no more precision")]
            let rate = (count - 1) as f64 * 60.0 / took;
            Some(format!("+{rate:.0}/min, {ages_told}"))
        }
    }
}

/// The function of a call without what it is nested in.
fn short_function(frame: &Frame) -> Option<String> {
    let function = frame.function.as_deref()?;
    let is_plain = !function.contains(['<', ' ', '(']);
    let short = match function.rfind("::").filter(|_| is_plain) {
        Some(last) => function.get(last + 2..)?,
        None => function.rsplit('/').next()?,
    };
    Some(printable(short))
}

/// "shop (4242)".
pub(super) fn process(snapshot: &Snapshot<'_>, process: ProcessKey) -> String {
    let comm = snapshot.comm(process).map_or_else(|| "?".to_owned(), printable);
    format!("{comm} ({})", process.pid)
}

/// "LEAK".
pub(super) fn severity(finding: &Finding) -> String {
    finding.verdict.severity.name().to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::WireState;
    use crate::outputs::testing::Run;

    /// Transactions that `app::report` has left open, one each 2 s.
    fn transactions(count: u64) -> Run {
        let mut run = Run::new();
        for number in 1..=count {
            run.world.request(
                number,
                200.0 + 2.0 * number as f64,
                "leak",
                WireState::InTransaction,
            );
        }
        run
    }

    fn told(run: &Run, at: f64) -> Vec<(String, Option<String>)> {
        let snapshot = run.snapshot(at);
        let open = run.ledger.open().into_iter();
        let open = open.filter(|one| one.verdict.reason == Reason::IdleInTransaction);
        open.map(|one| (says(&snapshot, one), pace(&snapshot, one))).collect()
    }

    #[test]
    fn headline_and_table_count_the_same() {
        let mut run = transactions(5);
        run.turn(267.0);
        let headline = "5 connections left in a transaction by report, 3 of them for over 60 s";
        let pace = "+30/min, oldest 64 s, newest 60 s";
        assert_eq!(told(&run, 267.0), [(headline.to_owned(), Some(pace.to_owned()))]);
    }

    #[test]
    fn what_is_over_has_no_pace() {
        let mut run = transactions(5);
        run.turn(400.0);
        let headline = "5 connections left in a transaction".to_owned();
        assert_eq!(told(&run, 400.0), [(headline, Some("oldest 197 s, newest 189 s".to_owned()))]);
    }
}
