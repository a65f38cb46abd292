//! The code that a finding names: the culprit and who called it, and the stack.

use std::io;

use crate::engine::detect::{CulpritUses, StackOf};
use crate::engine::findings::Finding;
use crate::engine::snapshot::Snapshot;
use crate::outputs::text::folded;
use crate::outputs::text::line::Line;
use crate::outputs::text::look::{Frames, Look};
use crate::outputs::text::place::{Place, place};
use crate::outputs::text::style::Tone;
use leak_stacks::{Quality, Stack};

/// Most frames shown; the JSON report has them all.
const MAX_FRAMES: usize = 200;
/// Most callers of the culprit that are shown.
const MAX_CALLERS: usize = 3;
/// Most calls that are shown of a stack that does not lead to the application.
const MAX_NAMED: usize = 6;
/// Where the code of an entry stands.
const INDENT: usize = 2;
/// Where it goes on below.
const HANGING: usize = 6;

/// Writes the culprit with its callers, or why nobody is named. The stack follows where all of it
/// is wanted.
pub(super) fn write(
    out: &mut impl io::Write,
    look: &Look,
    snapshot: &Snapshot<'_>,
    finding: &Finding,
) -> io::Result<()> {
    let verdict = &finding.verdict;
    if let Some(sender) = &verdict.sender {
        let does = if sender.is_seen { "is sent by" } else { "is found in" };
        let line = Line::new(INDENT, HANGING).text(&format!("the last statement {does}"));
        let line = match sender.only() {
            Some(frame) => Place::of(frame, look.frames).add_to(line, Tone::Strong),
            None => {
                let places: Vec<_> = sender.code.iter().map(|frame| place(frame, look)).collect();
                line.text(&format!("each of: {}", places.join("; ")))
            }
        };
        return line.write(out, look);
    }
    let Some(stack) = snapshot.stack(verdict.stack.as_ref()) else {
        let text = "code unknown: no stack of its last use is known";
        return Line::new(INDENT, HANGING).text(text).write(out, look);
    };
    let only_last = verdict.is_only_last_used();
    let index = if only_last { stack.culprit } else { verdict.culprit.map(|one| one.frame) };
    match index.and_then(|index| Some((index, stack.frames.get(index)?))) {
        Some((index, culprit)) => {
            let mut line = Line::new(INDENT, HANGING);
            if verdict.stack_of == StackOf::OpenedBy {
                line = line.text("opened by");
            } else if only_last {
                line = line.text("last used by");
            }
            let tone = if only_last { Tone::Dim } else { Tone::Strong };
            line = Place::of(culprit, look.frames).add_to(line, tone);
            let callers = callers(stack, index);
            let line = called(line, look, stack, index, &callers);
            let line = match folded::told(stack, index, &callers) {
                Some(folded) if look.frames == Frames::Application => line.apart(&folded),
                _ => line,
            };
            line.write(out, look)?;
        }
        None => write_unnamed(out, look, stack)?,
    }
    if let Some(CulpritUses { returned, kept }) = verdict.culprit_uses.filter(|_| only_last) {
        let text = format!(
            "which gives its connections back: {returned} of the uses seen were returned, {kept} kept"
        );
        Line::new(INDENT, HANGING).text(&text).write(out, look)?;
    }
    if look.frames == Frames::All { write_stack(out, look, stack) } else { Ok(()) }
}

/// Who called the culprit: the application's calls, else the next one that has a name.
fn callers(stack: &Stack, index: usize) -> Vec<usize> {
    let is_named =
        |&caller: &usize| stack.frames.get(caller).is_some_and(|frame| frame.function.is_some());
    let outer = stack.callers.iter().copied().filter(|&caller| caller > index);
    let mut callers: Vec<usize> = outer.filter(is_named).take(MAX_CALLERS).collect();
    if callers.is_empty() {
        callers.extend(Some(index + 1).filter(is_named));
    }
    callers
}

/// Adds through which helper the culprit did it, and who called it.
fn called(mut line: Line, look: &Look, stack: &Stack, index: usize, callers: &[usize]) -> Line {
    let helper = stack.culprit.filter(|&innermost| innermost < index);
    if let Some(function) = helper.and_then(|one| stack.frames.get(one)?.function.as_ref()) {
        line = line.text(&format!("through {function}"));
    }
    let callers = callers.iter().filter_map(|&caller| stack.frames.get(caller));
    for (number, caller) in callers.enumerate() {
        line = line.text(if number == 0 { "← called by" } else { "←" });
        let Place { function, source } = Place::of(caller, look.frames);
        line = function.iter().fold(line, |line, function| line.text(function));
        line = source.iter().fold(line, |line, source| line.path(None, source));
    }
    line
}

/// A stack that names nobody: what helps against that, or else the calls that have names.
fn write_unnamed(out: &mut impl io::Write, look: &Look, stack: &Stack) -> io::Result<()> {
    if let Some(advice) = leak_stacks::advice(stack) {
        let text = format!("the program's calls have no names: {advice}");
        return Line::new(INDENT, HANGING).text(&text).write(out, look);
    }
    let count = stack.frames.len();
    let text = match count {
        0 => "code unknown: no call of its stack could be read".to_owned(),
        _ => format!("no code of the application among the {count} calls of its stack"),
    };
    Line::new(INDENT, HANGING).text(&text).write(out, look)?;
    if look.frames == Frames::All {
        return Ok(());
    }
    let named = stack.frames.iter().filter(|frame| frame.function.is_some());
    for frame in named.take(MAX_NAMED) {
        Place::of(frame, look.frames).add_to(Line::new(4, 8), Tone::Dim).write(out, look)?;
    }
    Ok(())
}

/// Numbered frames; those of drivers and runtimes, inside the culprit, are dimmed.
fn write_stack(out: &mut impl io::Write, look: &Look, stack: &Stack) -> io::Result<()> {
    for (number, frame) in stack.frames.iter().enumerate().take(MAX_FRAMES) {
        let line = Line::labelled(4, None, &format!("{number:>3}"), 3);
        let tone = match stack.culprit {
            Some(culprit) if number == culprit => Tone::Strong,
            Some(culprit) if number > culprit => Tone::Plain,
            _ => Tone::Dim,
        };
        Place::of(frame, look.frames).add_to(line, tone).write(out, look)?;
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
    Line::new(7, 7).text(&format!("({missing}{why})")).write(out, look)
}
