//! The runtimes of one program of a process.

use std::time::Duration;

use crate::binary::symbols::Symbol;
use crate::guarded::guarded;
use crate::languages::call::{Call, Named};
use crate::languages::language::{Code, Language, Process, Runtime};
use crate::languages::registry::languages;
use crate::raw::{InterpreterFrame, RawStack, StackProfile};
use crate::stack::{self, Frame, Stack};
use crate::time::Timestamp;
use crate::unwind::registers::Registers;
use crate::unwind::step::{Position, RuntimeStep, RuntimeUnwinder, StackCopy};

/// How often runtimes are looked for again at most, in a process that may be starting one.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// All languages that are known.
#[derive(Debug)]
pub(crate) struct Languages(Vec<Box<dyn Language>>);

impl Default for Languages {
    fn default() -> Self {
        Self(languages())
    }
}

impl Languages {
    /// These alone.
    #[cfg(test)]
    pub(crate) fn of(languages: Vec<Box<dyn Language>>) -> Self {
        Self(languages)
    }
}

/// What was found of each language in one program of a process.
#[derive(Debug, Default)]
pub(crate) struct Runtimes {
    /// In the order of the languages.
    found: Vec<Found>,
    looked_at: Option<Timestamp>,
}

#[derive(Debug)]
struct Found {
    language: Option<stack::Language>,
    runtime: Option<Box<dyn Runtime>>,
}

/// The calls that were noted of a stack.
#[derive(Debug, Default)]
pub(crate) struct NotedCalls {
    /// Innermost first; what cannot be named is `None`.
    pub(crate) calls: Vec<Option<Call>>,
    /// Whether they are all that the thread has.
    pub(crate) are_whole: bool,
    /// Which runtime has named them.
    runtime: Option<usize>,
}

impl Runtimes {
    /// Looks for runtimes that were not found yet, and again at those that were, unless that was
    /// done just now.
    pub(crate) fn look(&mut self, languages: &mut Languages, process: &Process<'_>) {
        if self.looked_at.is_some_and(|at| process.now.since(at) < LOOK_AGAIN_AFTER) {
            return;
        }
        self.looked_at = Some(process.now);
        if self.found.is_empty() {
            let languages = languages.0.iter().map(|language| language.value());
            self.found = languages.map(|language| Found { language, runtime: None }).collect();
        }
        for (language, Found { runtime, .. }) in languages.0.iter_mut().zip(&mut self.found) {
            match runtime {
                Some(runtime) => {
                    guarded(|| runtime.look_again(process));
                }
                None => *runtime = guarded(|| language.find(process)).flatten(),
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = (usize, &Found, &dyn Runtime)> {
        let indexed = self.found.iter().enumerate();
        indexed.filter_map(|(index, found)| Some((index, found, found.runtime.as_deref()?)))
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut Box<dyn Runtime>)> {
        let indexed = self.found.iter_mut().enumerate();
        indexed.filter_map(|(index, found)| Some((index, found.runtime.as_mut()?)))
    }

    fn get_mut(&mut self, index: usize) -> Option<&mut Box<dyn Runtime>> {
        self.found.get_mut(index)?.runtime.as_mut()
    }

    /// What whoever copies the process's stacks should know.
    pub(crate) fn profile(&self) -> StackProfile {
        let profiles = self.iter().map(|(_, _, runtime)| runtime.profile());
        profiles.fold(StackProfile::default(), StackProfile::and)
    }

    /// Steps through the runtimes' frames.
    pub(crate) fn unwinder<'a>(
        &'a mut self,
        process: &'a Process<'a>,
    ) -> impl RuntimeUnwinder + 'a {
        Unwinder { runtimes: self, process }
    }

    /// Notes what the runtimes know of a blocked thread: the calls that the kernel programs would
    /// note, and where it has left their code.
    pub(crate) fn note_calls(&mut self, raw: &mut RawStack, process: &Process<'_>) {
        raw.entry = self
            .iter_mut()
            .find_map(|(_, runtime)| guarded(|| runtime.entry_of(raw.tid, process)).flatten());
        let noted = self.iter_mut().find_map(|(_, runtime)| {
            let profile = runtime.profile().interpreter?;
            Some((profile.tag, guarded(|| runtime.calls_of(raw.tid, process)).flatten()?))
        });
        if let Some((tag, calls)) = noted {
            (raw.interpreter_frames, raw.interpreter_whole) = (calls.frames, calls.are_whole);
            raw.interpreter_tag = tag;
        }
    }

    /// Names the calls that were noted of a stack. When none of them can be named, they were no
    /// calls.
    pub(crate) fn name_noted(&mut self, raw: &RawStack, process: &Process<'_>) -> NotedCalls {
        let tag = raw.interpreter_tag;
        let is_its = |runtime: &dyn Runtime| {
            runtime.profile().interpreter.is_some_and(|profile| profile.tag == tag)
        };
        let noting = self.iter().find(|(_, _, runtime)| is_its(*runtime)).map(|(index, ..)| index);
        let Some((index, runtime)) = noting.and_then(|at| Some((at, self.get_mut(at)?))) else {
            return NotedCalls::default();
        };
        let mut calls = Vec::new();
        for &frame in &raw.interpreter_frames {
            match guarded(|| runtime.name_frame(frame, process)).flatten() {
                Some(named) => calls.extend(named.calls.into_iter().map(Some)),
                None => calls.push(None),
            }
        }
        if calls.iter().all(Option::is_none) {
            return NotedCalls::default();
        }
        NotedCalls { calls, are_whole: raw.interpreter_whole, runtime: Some(index) }
    }

    /// Whether a native function is one that noted calls stand for; `None`: it has no name, and no
    /// file backs its code.
    pub(crate) fn is_evaluator(&self, noted: &NotedCalls, function: Option<&str>) -> bool {
        self.noting(noted).is_some_and(|runtime| match function {
            Some(function) => runtime.is_evaluator(function),
            None => runtime.compiles_noted(),
        })
    }

    /// Whether a native frame is one that noted calls stand for, by its code.
    pub(crate) fn is_evaluator_code(&self, noted: &NotedCalls, code: &Code<'_>) -> bool {
        self.noting(noted).is_some_and(|runtime| runtime.is_evaluator_code(code))
    }

    /// The runtime that has named noted calls.
    fn noting(&self, noted: &NotedCalls) -> Option<&dyn Runtime> {
        self.found.get(noted.runtime?)?.runtime.as_deref()
    }

    /// Names code, by the first runtime that knows it.
    pub(crate) fn name_code(
        &mut self,
        code: &Code<'_>,
        process: &Process<'_>,
    ) -> Option<Named<Symbol>> {
        self.iter_mut()
            .find_map(|(_, runtime)| guarded(|| runtime.name_code(code, process)).flatten())
    }

    /// Names a frame that the step of this runtime has found.
    pub(crate) fn name_frame(
        &mut self,
        runtime: usize,
        frame: InterpreterFrame,
        process: &Process<'_>,
    ) -> Option<Named<Call>> {
        let runtime = self.get_mut(runtime)?;
        guarded(|| runtime.name_frame(frame, process)).flatten()
    }

    /// The number of the lightweight thread that ran.
    pub(crate) fn light_thread(&mut self, raw: &RawStack, process: &Process<'_>) -> Option<u64> {
        self.iter_mut()
            .find_map(|(_, runtime)| guarded(|| runtime.light_thread(raw, process)).flatten())
    }

    /// The language of the whole program, if it is written in one.
    pub(crate) fn language_of_program(&self) -> Option<stack::Language> {
        self.iter()
            .find(|(_, _, runtime)| runtime.is_whole_program())
            .and_then(|(_, found, _)| found.language)
    }

    /// The language of a runtime.
    pub(crate) fn language_of(&self, runtime: usize) -> Option<stack::Language> {
        self.found.get(runtime)?.language
    }

    /// The language of noted calls.
    pub(crate) fn language_of_noted(&self, noted: &NotedCalls) -> Option<stack::Language> {
        self.language_of(noted.runtime?)
    }

    /// Whether code that was compiled at run time is known to keep frame pointers.
    pub(crate) fn keep_frame_pointers(&self) -> bool {
        self.iter().any(|(_, _, runtime)| runtime.keeps_frame_pointers() == Some(true))
    }

    /// Makes the named frames of a stack more readable.
    pub(crate) fn tidy(&self, frames: &mut Vec<Frame>) {
        self.iter().for_each(|(_, _, runtime)| runtime.tidy(frames));
    }
}

struct Unwinder<'a> {
    runtimes: &'a mut Runtimes,
    process: &'a Process<'a>,
}

impl RuntimeUnwinder for Unwinder<'_> {
    fn step(
        &mut self,
        position: Position,
        registers: &mut Registers,
        stack: &StackCopy<'_>,
    ) -> Option<RuntimeStep> {
        self.runtimes.iter_mut().find_map(|(index, runtime)| {
            let unwound = runtime.step(position, registers, stack, self.process)?;
            Some(RuntimeStep { step: unwound.step, runtime: index, frame: unwound.frame })
        })
    }
}

/// What a user can do, in one line, when none of the runtime's calls on a stack has a name; `None`
/// when some have, or the stack is that of no runtime.
#[must_use]
pub fn advice(stack: &Stack) -> Option<&'static str> {
    // Calls that runtimes name are in a source file, or in code that no file backs.
    let is_call = |frame: &Frame| frame.module.is_none() || frame.module == frame.file;
    let has_name = |frame: &Frame| frame.function.is_some() && is_call(frame);
    if stack.frames.is_empty() || stack.culprit.is_some() || stack.frames.iter().any(has_name) {
        return None;
    }
    let known = languages();
    let mut its = known.iter().filter(|language| language.value() == Some(stack.language));
    its.find_map(|language| language.advice())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::{Quality, StackId};

    #[test]
    fn advice_is_for_stacks_of_which_no_call_has_a_name() {
        let frame = |function: Option<&str>, module: Option<&str>| Frame {
            function: function.map(str::to_owned),
            module: module.map(str::to_owned),
            file: None,
            line: None,
            address: 1,
        };
        let stack = |language, frames: &[Frame]| Stack {
            id: StackId(1),
            quality: Quality::Complete,
            truncation: None,
            language,
            frames: frames.to_vec(),
            culprit: None,
            callers: Vec::new(),
        };
        let native = [frame(Some("send"), Some("/lib/libc.so.6")), frame(None, Some("/bin/deno"))];
        let compiled = [frame(Some("send"), Some("/lib/libc.so.6")), frame(Some("pay"), None)];
        let nameless = [frame(Some("send"), Some("/lib/libc.so.6")), frame(None, None)];
        let deno = |frames: &[Frame]| advice(&stack(stack::Language::Deno, frames));
        assert!(deno(&native).is_some_and(|advice| advice.contains("--perf-basic-prof")));
        assert_eq!(deno(&nameless), deno(&native));
        assert_eq!(deno(&compiled), None);
        assert_eq!(deno(&[]), None);
        let mut named = stack(stack::Language::Deno, &nameless);
        named.culprit = Some(0);
        assert_eq!(advice(&named), None);
        assert_eq!(advice(&stack(stack::Language::Native, &native)), None);
    }
}
