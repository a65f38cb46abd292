//! One finding, with the code that it names.

use std::collections::HashMap;
use std::io;

use crate::engine::detect::{CulpritUses, Scope, Severity, StackOf, plural};
use crate::engine::findings::{Finding, FindingId};
use crate::engine::snapshot::Snapshot;
use crate::model::Pod;
use crate::model::{ProcessKey, StackId};
use crate::outputs::text::place::place;
use crate::outputs::text::style::{Paint, Tone, printable};
use crate::outputs::text::{holders, sender, session, waiting};
use leak_stacks::{Quality, Stack};

/// Most frames shown; the JSON report has them all.
const MAX_FRAMES: usize = 40;

/// How much of a container's id people and their tools use.
const SHORT_ID: usize = 12;

/// The stacks that were written already, and for which finding.
pub(super) type Shown = HashMap<StackId, FindingId>;

/// Writes all of it: headline, culprit, evidence and stack, unless that stands above already.
pub(super) fn write(
    out: &mut impl io::Write,
    paint: Paint,
    snapshot: &Snapshot<'_>,
    finding: &Finding,
    shown: &mut Shown,
) -> io::Result<()> {
    write_headline(out, paint, snapshot, finding)?;
    write_culprit(out, paint, snapshot, finding)?;
    write_evidence(out, finding)?;
    waiting::write_fate(out, snapshot, finding)?;
    session::write(out, snapshot, finding)?;
    holders::write(out, snapshot, finding)?;
    write_next_step(out, snapshot, finding)?;
    if finding.verdict.scope() == Scope::Server {
        return Ok(());
    }
    let Some(stack) = snapshot.stack(finding.verdict.stack.as_ref()) else {
        return writeln!(out, "  {}", paint.tone(Tone::Dim, "its stack is unknown"));
    };
    if let Some(other) = shown.get(&stack.id) {
        return writeln!(out, "  {}", paint.tone(Tone::Dim, &format!("same stack as {other}")));
    }
    shown.insert(stack.id, finding.id);
    match leak_stacks::advice(stack) {
        // Instead of frames that say nothing; the JSON report has them.
        Some(advice) => writeln!(out, "  the program's calls have no names: {advice}"),
        None => write_stack(out, paint, stack),
    }
}

/// `LEAK f3 abandoned: 12 connections of shop (4242) to 127.0.0.1:5432`.
pub(super) fn write_headline(
    out: &mut impl io::Write,
    paint: Paint,
    snapshot: &Snapshot<'_>,
    finding: &Finding,
) -> io::Result<()> {
    let tone = match finding.verdict.severity {
        Severity::Leak => Tone::Leak,
        Severity::Suspect => Tone::Suspect,
        Severity::Info => Tone::Dim,
    };
    let severity = paint.tone(tone, &finding.verdict.severity.name().to_uppercase());
    writeln!(out, "{severity} {}", subject(snapshot, finding))
}

/// The code that the stack names, when it names any.
pub(super) fn write_culprit(
    out: &mut impl io::Write,
    paint: Paint,
    snapshot: &Snapshot<'_>,
    finding: &Finding,
) -> io::Result<()> {
    let verdict = &finding.verdict;
    if let Some(sender) = &verdict.sender {
        return sender::write(out, paint, sender);
    }
    let Some(stack) = snapshot.stack(verdict.stack.as_ref()) else { return Ok(()) };
    let only_last = verdict.is_only_last_used();
    let index = if only_last { stack.culprit } else { verdict.culprit.map(|one| one.frame) };
    let Some(index) = index else { return Ok(()) };
    let Some(culprit) = stack.frames.get(index) else { return Ok(()) };
    let did = match verdict.stack_of {
        StackOf::OpenedBy => "opened by",
        StackOf::LastUsedBy => "last used by",
    };
    let through = stack.culprit.filter(|&innermost| innermost < index);
    let through = through.and_then(|innermost| stack.frames.get(innermost)?.function.as_ref());
    let through = through.map(|helper| format!(" through {}", printable(helper)));
    let through = through.unwrap_or_default();
    // Many programs query through a helper of their own: who called it says more.
    let caller = stack.frames.get(index + 1).filter(|frame| frame.function.is_some());
    let caller = caller.map(|frame| format!(", called by {}", place(frame))).unwrap_or_default();
    let tone = if only_last { Tone::Dim } else { Tone::Strong };
    writeln!(out, "  {did} {}{through}{caller}", paint.tone(tone, &place(culprit)))?;
    match verdict.culprit_uses {
        Some(CulpritUses { returned, kept }) if only_last => {
            writeln!(
                out,
                "  which gives its connections back: {returned} of the uses seen were returned, \
                 {kept} kept"
            )
        }
        _ => Ok(()),
    }
}

/// One line for a finding that is no longer true.
pub(super) fn write_retracted(
    out: &mut impl io::Write,
    paint: Paint,
    snapshot: &Snapshot<'_>,
    finding: &Finding,
    why: Option<&str>,
) -> io::Result<()> {
    let retracted = paint.tone(Tone::Good, "retracted");
    let why = match (why, finding.retracted_at) {
        (Some(why), _) => why.to_owned(),
        (None, Some(at)) => format!("at {}", snapshot.clock.rfc3339(at)),
        (None, None) => String::new(),
    };
    writeln!(out, "{retracted} {}: {why}", subject(snapshot, finding))
}

/// The evidence, on a line of its own.
pub(super) fn write_evidence(out: &mut impl io::Write, finding: &Finding) -> io::Result<()> {
    writeln!(out, "  {}", printable(&finding.evidence()))
}

/// What to do about it, on a line of its own.
fn write_next_step(
    out: &mut impl io::Write,
    snapshot: &Snapshot<'_>,
    finding: &Finding,
) -> io::Result<()> {
    match finding.verdict.next_step(snapshot.culprit(&finding.verdict)) {
        Some(step) => writeln!(out, "  next: {}", printable(&step)),
        None => Ok(()),
    }
}

fn subject(snapshot: &Snapshot<'_>, finding: &Finding) -> String {
    let verdict = &finding.verdict;
    let comm = snapshot.comm(verdict.process).map_or_else(|| "?".to_owned(), printable);
    let refused = verdict.evidence.no_slot_left().map(|full| full.refused);
    let refused = refused.map(|refused| usize::try_from(refused).unwrap_or(usize::MAX));
    let count = refused.unwrap_or(verdict.connections.len());
    format!(
        "{} {}: {} of {comm} ({}{}) to {}{}",
        finding.id,
        verdict.reason,
        plural(count, "connection"),
        verdict.process.pid,
        inside(snapshot, verdict.process),
        verdict.remote,
        snapshot
            .destination(verdict.remote)
            .map_or_else(String::new, |name| { printable(&format!(" ({name})")) })
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

/// Numbered frames; those of drivers and runtimes, inside the culprit, are dimmed.
fn write_stack(out: &mut impl io::Write, paint: Paint, stack: &Stack) -> io::Result<()> {
    for (number, frame) in stack.frames.iter().enumerate().take(MAX_FRAMES) {
        let line = format!("    {number:>2} {}", place(frame));
        let line = match stack.culprit {
            Some(culprit) if number == culprit => paint.tone(Tone::Strong, &line),
            Some(culprit) if number > culprit => line,
            _ => paint.tone(Tone::Dim, &line),
        };
        writeln!(out, "{line}")?;
    }
    let more = stack.frames.len().saturating_sub(MAX_FRAMES);
    if more > 0 {
        writeln!(out, "       … and {more} more")?;
    }
    let missing = match stack.quality {
        Quality::Complete => return Ok(()),
        Quality::Truncated => "truncated, outer frames are missing",
        Quality::None => "no frames",
    };
    let why = stack.truncation.map(|why| format!(": {}", why.describe())).unwrap_or_default();
    writeln!(out, "       ({missing}{why})")
}
