//! One entry of the report: findings of one cause, with all that helps to mend it.

use std::io;

use crate::engine::detect::{Scope, Severity};
use crate::engine::findings::Finding;
use crate::engine::snapshot::Snapshot;
use crate::model::{Pod, ProcessKey};
use crate::outputs::text::causes::Cause;
use crate::outputs::text::line::Line;
use crate::outputs::text::look::Look;
use crate::outputs::text::style::{Tone, printable};
use crate::outputs::text::{code, holders, phrase, place, relief, session, waiting};

/// How much of a container's id people and their tools use.
const SHORT_ID: usize = 12;
/// How wide the labels of an entry's lines are.
const LABEL: usize = 10;
/// How wide the headline's label is, at least.
const HEADLINE: usize = 6;

/// How entries are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Called {
    /// By their number in the report; the finding's id is told, too.
    Number(usize),
    /// By the finding's id: numbers would change while the trace goes on.
    Id,
}

/// Writes all of an entry.
pub(super) fn write(
    out: &mut impl io::Write,
    look: &Look,
    snapshot: &Snapshot<'_>,
    cause: &Cause<'_>,
    called: Called,
) -> io::Result<()> {
    let lead = cause.lead;
    headline(snapshot, lead, called).write(out, look)?;
    if lead.verdict.scope() != Scope::Server {
        code::write(out, look, snapshot, lead)?;
    }
    let fact = |label: &str, text: &str| Line::labelled(2, None, label, LABEL).text(text);
    fact("evidence", &lead.evidence()).write(out, look)?;
    if let Some(fate) = waiting::fate(snapshot, look, lead) {
        fact("now", &fate).write(out, look)?;
    }
    let members = session::members(snapshot, lead);
    for (number, told) in session::by_server(snapshot, &members).iter().enumerate() {
        fact(if number == 0 { "statement" } else { "" }, told).write(out, look)?;
    }
    if lead.verdict.scope() == Scope::Server {
        holders::write(out, look, snapshot, lead)?;
    } else {
        fact("who", &who(snapshot, lead)).text(&session::names(&members)).write(out, look)?;
        if let Some(backends) = session::backends(&members) {
            fact("backends", &backends).write(out, look)?;
        }
    }
    if let Some(step) = lead.verdict.next_step(snapshot.culprit(&lead.verdict)) {
        fact("fix", &step).write(out, look)?;
    }
    if let Some(relief) = relief::told(snapshot, lead) {
        fact("relief now", &relief).write(out, look)?;
    }
    for (number, other) in cause.also.iter().enumerate() {
        let verdict = &other.verdict;
        let (severity, id) = (verdict.severity.name(), other.id);
        let text = format!("{}: {} ({severity} {id})", verdict.reason, other.evidence());
        fact(if number == 0 { "also" } else { "" }, &text).write(out, look)?;
    }
    Ok(())
}

/// "LEAK 1  21 connections left in a transaction   +10/min, oldest 118 s, newest 67 s   (f2
/// idle_in_transaction)".
pub(super) fn headline(snapshot: &Snapshot<'_>, finding: &Finding, called: Called) -> Line {
    let severity = phrase::severity(finding);
    let (id, reason) = (finding.id, finding.verdict.reason);
    let (label, id) = match called {
        Called::Number(number) => (format!("{severity} {number}"), format!("({id} {reason})")),
        Called::Id => (format!("{severity} {id}"), format!("({reason})")),
    };
    let says = phrase::says(snapshot, finding);
    let line = Line::labelled(0, Some(tone(finding)), &label, HEADLINE).toned(Tone::Strong, &says);
    let line = match phrase::pace(snapshot, finding) {
        Some(pace) => line.apart(&pace),
        None => line,
    };
    line.apart(&id)
}

/// A finding in one line, with its code and process.
pub(super) fn brief(
    look: &Look,
    snapshot: &Snapshot<'_>,
    finding: &Finding,
    called: Called,
) -> Line {
    let line = headline(snapshot, finding, called);
    with_code(line, look, snapshot, finding)
}

/// Adds the code that a finding blames, and its process.
pub(super) fn with_code(
    line: Line,
    look: &Look,
    snapshot: &Snapshot<'_>,
    finding: &Finding,
) -> Line {
    let line = match snapshot.culprit(&finding.verdict) {
        Some(frame) => place::Place::of(frame, look.frames).add_to(line.text("in"), Tone::Plain),
        None => line,
    };
    match finding.verdict.scope() {
        Scope::Server => line,
        _ => line.text(&format!("[{}]", phrase::process(snapshot, finding.verdict.process))),
    }
}

pub(super) fn tone(finding: &Finding) -> Tone {
    match finding.verdict.severity {
        Severity::Leak => Tone::Leak,
        Severity::Suspect => Tone::Suspect,
        Severity::Info => Tone::Strong,
    }
}

/// "shop (4242), container app of pod shop/orders-7d9f, to 10.0.0.1:5432 (service db/postgres)".
fn who(snapshot: &Snapshot<'_>, finding: &Finding) -> String {
    let verdict = &finding.verdict;
    let destination = snapshot
        .destination(verdict.remote)
        .map_or_else(String::new, |name| printable(&format!(" ({name})")));
    format!(
        "{}{} → {}{destination}",
        phrase::process(snapshot, verdict.process),
        inside(snapshot, verdict.process),
        verdict.remote,
    )
}

/// Where a process runs that is not simply on this machine, as those who look from inside know it.
fn inside(snapshot: &Snapshot<'_>, process: ProcessKey) -> String {
    let info = snapshot.processes.get(&process);
    let pod = info.and_then(|info| info.pod.as_ref()).map(|pod| {
        let Pod { namespace, name, container, labels: _ } = pod;
        printable(&format!("container {container} of pod {namespace}/{name}"))
    });
    let id = info.and_then(|info| info.container_id.as_deref()?.get(..SHORT_ID));
    let container = pod.or_else(|| Some(format!("container {}", id?)));
    match (info.and_then(|info| info.container_pid), container) {
        (Some(pid), Some(container)) => format!(", {pid} in {container}"),
        (Some(pid), None) => format!(", {pid} in its PID namespace"),
        (None, Some(container)) => format!(", {container}"),
        (None, None) => String::new(),
    }
}

/// A finding that is no longer true, with what it said last.
pub(super) fn retracted(
    line: Line,
    look: &Look,
    snapshot: &Snapshot<'_>,
    finding: &Finding,
) -> Line {
    let (id, reason) = (finding.id, finding.verdict.reason);
    let line = line.text(&format!("{id} {reason}: {}", phrase::says(snapshot, finding)));
    with_code(line, look, snapshot, finding)
}
