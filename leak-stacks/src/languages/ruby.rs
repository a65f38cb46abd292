//! Ruby (CRuby). Its native frames only show the VM, and YJIT's code none at all, so the kernel
//! programs note the control frames of the thread's execution context, and the calls are named
//! here.
//!
//! What a process's memory claims is checked: an instruction sequence must be tagged as one, the
//! instruction must be inside it, the method entry that was noted must lead back to it, and every
//! length has a limit. What fails the checks gets no name, which is better than a wrong one.
//!
//! One gap is left: code outside of any method (a script's, or a string's that was evaluated) that
//! was freed before its stack is resolved. If another such piece of code has taken the memory of
//! both its sequence and its instructions since, that one is named.

mod class;
mod find;
mod layout;
mod lines;
#[cfg(any(test, feature = "fuzzing"))]
mod made_up;
mod object;
mod sequence;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use self::find::{Place, Thread};
use self::layout::Layout;
use self::sequence::{Fingerprint, Reader};
use crate::binary::modules::Modules;
use crate::languages::call::{Call, Named};
use crate::languages::language::{Code, Language, Process, Runtime};
use crate::languages::target::Target;
use crate::process::memory::Memory;
use crate::raw::{CopyLength, InterpreterFrame, InterpreterProfile, StackProfile};
use crate::stack;
use crate::time::Timestamp;
use crate::unwind::rules::FrameRules;

/// Most calls of one process that are remembered.
const MAX_REMEMBERED: usize = 1024;
/// The VM's functions that run Ruby code; compilers add suffixes for parts of them.
const EVALUATORS: [&str; 3] = ["vm_exec_core", "vm_exec", "rb_vm_exec"];
/// How soon a process is looked at again that has not started Ruby yet, at first and at last: each
/// time it takes twice as long.
const SOONEST: Duration = Duration::from_millis(200);
const LATEST: Duration = Duration::from_secs(2);

/// The language.
#[derive(Debug)]
pub(crate) struct Ruby;

impl Language for Ruby {
    fn find(&mut self, process: &Process<'_>) -> Option<Box<dyn Runtime>> {
        let place = Place::find(process)?;
        let mut runtime = CRuby { place, vm: None, found: None, next: process.now, wait: SOONEST };
        runtime.look_again(process);
        Some(Box::new(runtime))
    }

    fn value(&self) -> Option<stack::Language> {
        Some(stack::Language::Ruby)
    }
}

/// Ruby in one process.
#[derive(Debug)]
struct CRuby {
    place: Place,
    vm: Option<u64>,
    /// `None` while it starts, and when its release is not understood.
    found: Option<Started>,
    /// When to look again.
    next: Timestamp,
    wait: Duration,
}

/// What is known of a VM that runs a program.
#[derive(Debug)]
struct Started {
    layout: Layout,
    profile: InterpreterProfile,
    /// The addresses of the function that runs instructions.
    evaluator: Range<u64>,
    remembered: HashMap<InterpreterFrame, (Fingerprint, Call)>,
}

impl Runtime for CRuby {
    fn look_again(&mut self, process: &Process<'_>) {
        if self.found.is_some() || process.now < self.next {
            return;
        }
        self.next = process.now.after(self.wait);
        self.wait = (self.wait * 2).min(LATEST);
        self.found = process.memory().and_then(|memory| self.start(memory, process.modules));
    }

    fn profile(&self) -> StackProfile {
        let interpreter = self.found.as_ref().map(|found| found.profile);
        StackProfile { interpreter, copy_length: CopyLength::Generous, ..StackProfile::default() }
    }

    fn name_frame(
        &mut self,
        frame: InterpreterFrame,
        process: &Process<'_>,
    ) -> Option<Named<Call>> {
        let call = self.found.as_mut()?.name(frame, process.memory()?)?;
        Some(Named { calls: vec![call], is_lasting: true })
    }

    fn is_evaluator(&self, function: &str) -> bool {
        function.split('.').next().is_some_and(|name| EVALUATORS.contains(&name))
    }

    fn is_evaluator_code(&self, code: &Code<'_>) -> bool {
        // What no file backs is what YJIT has compiled.
        let is_evaluator = |found: &Started| found.evaluator.contains(&code.address);
        code.in_file.is_none() || self.found.as_ref().is_some_and(is_evaluator)
    }
}

impl CRuby {
    fn start(&mut self, target: &dyn Target, modules: &Modules) -> Option<Started> {
        if self.vm.is_none() {
            self.vm = self.place.vm(target);
        }
        let thread = Thread::main(self.vm?, target)?;
        let layout = Layout::find(&self.place, &thread, target)?;
        let profile = layout.profile(&thread);
        let evaluator = evaluator(&thread, &layout, target, modules).unwrap_or_default();
        Some(Started { layout, profile, evaluator, remembered: HashMap::new() })
    }
}

/// The function that runs instructions. Each instruction is written as the address of its code
/// there, so any of them leads to it.
fn evaluator(
    thread: &Thread,
    layout: &Layout,
    target: &dyn Target,
    modules: &Modules,
) -> Option<Range<u64>> {
    let code = layout.some_instruction(thread, target)?;
    let mapping = modules.find(code)?;
    let address = mapping.address_in_file(code)?;
    let rules = mapping.binary.as_ref()?.facts::<FrameRules>()?;
    let Range { start, end } = rules.function_at(address)?;
    let bias = code.wrapping_sub(address);
    Some(start.wrapping_add(bias)..end.wrapping_add(bias))
}

impl Started {
    fn name(&mut self, frame: InterpreterFrame, memory: &Memory) -> Option<Call> {
        let known = self.remembered.get(&frame);
        if memory.word(frame.pointer).is_none() {
            // The process has exited; what was read before still holds.
            return known.map(|(_, call)| call.clone());
        }
        let reader = Reader { layout: &self.layout, target: memory };
        let found = reader.find(frame)?;
        let fingerprint = reader.fingerprint(&found)?;
        if let Some((same, call)) = known
            && *same == fingerprint
        {
            return Some(call.clone());
        }
        let call = reader.call(&found)?;
        if self.remembered.len() >= MAX_REMEMBERED {
            self.remembered.clear();
        }
        self.remembered.insert(frame, (fingerprint, call.clone()));
        Some(call)
    }
}

/// Reads any bytes as the memory of a VM.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(data: &[u8]) {
    made_up::calls(data);
}
