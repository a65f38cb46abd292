//! CPython. Its native frames only show the interpreter, so the kernel programs note the chain of
//! calls that it keeps in memory, and the calls are named here.
//!
//! What a process's memory claims is checked: a code object must have the interpreter's type for
//! code objects, the instruction must be inside its code, and every length has a limit. What fails
//! the checks gets no name, which is better than a wrong one.
//!
//! One gap is left: a function that was made at run time (`exec`) and freed before its stack is
//! resolved. If another function's code has taken its memory since, that function is named.

mod code;
mod description;
mod evaluator;
mod find;
mod layout;
mod lines;
#[cfg(test)]
mod tests;
mod threads;

use std::collections::HashMap;

use self::code::{Fingerprint, Header};
use self::find::Interpreter;
use self::layout::Parameters;
use crate::binary::symbols::Symbol;
use crate::languages::call::{Call, Named};
use crate::languages::language::{Code, Language, Process, Runtime, ThreadCalls};
use crate::languages::thread_index::ThreadIndex;
use crate::process::memory::Memory;
use crate::raw::{InterpreterFrame, InterpreterProfile, StackProfile};
use crate::stack;

/// Most calls of one process that are remembered.
const MAX_REMEMBERED: usize = 512;

/// The language.
#[derive(Debug)]
pub(crate) struct Python;

impl Language for Python {
    fn find(&mut self, process: &Process<'_>) -> Option<Box<dyn Runtime>> {
        let interpreter = Interpreter::find(process)?;
        let profile = interpreter.profile(process.memory()?);
        Some(Box::new(CPython {
            interpreter,
            profile,
            remembered: HashMap::new(),
            threads: ThreadIndex::default(),
        }))
    }

    fn value(&self) -> Option<stack::Language> {
        Some(stack::Language::Python)
    }

    fn advice(&self) -> Option<&'static str> {
        Some("only CPython since 3.8 that exports its symbols has them; since 3.12, try -X perf")
    }
}

/// The interpreter of one process.
#[derive(Debug)]
struct CPython {
    interpreter: Interpreter,
    /// `None` while the interpreter starts.
    profile: Option<InterpreterProfile>,
    remembered: HashMap<InterpreterFrame, (Fingerprint, Call)>,
    threads: ThreadIndex,
}

impl Runtime for CPython {
    fn look_again(&mut self, process: &Process<'_>) {
        if self.profile.is_none() {
            self.profile = process.memory().and_then(|memory| self.interpreter.profile(memory));
        }
    }

    fn profile(&self) -> StackProfile {
        StackProfile { interpreter: self.profile, ..StackProfile::default() }
    }

    fn calls_of(&mut self, tid: u32, process: &Process<'_>) -> Option<ThreadCalls> {
        let parameters = Parameters::of(&self.profile?.parameters);
        let (interpreter, memory, pid) = (&self.interpreter, process.memory()?, process.key.pid);
        let state =
            self.threads.find(tid, process.now, || threads::list(interpreter, pid, memory))?;
        threads::calls_of(state, &interpreter.layout, &parameters, memory)
    }

    fn name_frame(
        &mut self,
        frame: InterpreterFrame,
        process: &Process<'_>,
    ) -> Option<Named<Call>> {
        let call = self.name(frame, process.memory()?)?;
        Some(Named { calls: vec![call], is_lasting: true })
    }

    fn name_code(&mut self, code: &Code<'_>, _process: &Process<'_>) -> Option<Named<Symbol>> {
        let (binary, address) = code.in_file?;
        let is_its = code.address.wrapping_sub(address) == self.interpreter.bias;
        if !is_its || !evaluator::has_part_at(binary, address) {
            return None;
        }
        let function = Some(evaluator::NAMES[0].to_owned());
        Some(Named { calls: vec![Symbol { function, ..Symbol::default() }], is_lasting: true })
    }

    fn is_evaluator(&self, function: &str) -> bool {
        evaluator::NAMES.iter().any(|name| function.starts_with(name))
    }

    fn compiles_noted(&self) -> bool {
        self.interpreter.compiles
    }
}

impl CPython {
    fn name(&mut self, frame: InterpreterFrame, memory: &Memory) -> Option<Call> {
        let known = self.remembered.get(&frame);
        if memory.word(frame.pointer).is_none() {
            // The process has exited; what was read before still holds.
            return known.map(|(_, call)| call.clone());
        }
        let header = Header::read(frame.pointer, &self.interpreter, memory)?;
        let fingerprint = header.fingerprint(&self.interpreter)?;
        if let Some((same, call)) = known
            && *same == fingerprint
        {
            return Some(call.clone());
        }
        let call = header.call(frame.position, &self.interpreter, memory)?;
        if self.remembered.len() >= MAX_REMEMBERED {
            self.remembered.clear();
        }
        self.remembered.insert(frame, (fingerprint, call.clone()));
        Some(call)
    }
}

/// Reads any bytes as what CPython keeps in its memory.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(data: &[u8]) {
    use self::layout::Layout;
    use self::lines::{LineFormat, line_at};
    if let Some(layout) = Layout::described(data) {
        layout.profile(0, 0);
    }
    let Some((head, table)) = data.split_at_checked(8) else { return };
    let offset = head.iter().take(3).fold(0, |offset, byte| offset << 8 | u64::from(*byte));
    for format in [LineFormat::Steps, LineFormat::Ranges, LineFormat::Locations] {
        line_at(format, table, head.iter().skip(4).map(|byte| u32::from(*byte)).sum(), offset);
    }
}
