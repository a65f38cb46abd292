//! CPython: its native frames only show the interpreter, so the kernel programs follow its own chain
//! of calls, and what they find is named here.
//!
//! What a process's memory claims is checked: a code object must be of the interpreter's type for
//! them, the instruction must lie in it, and every length has a limit. What fails has no name, which
//! is better than a wrong one.
//!
//! One gap is left: a function that was made at run time (`exec`) and dropped before its stack is
//! asked for may have had its memory taken by another function's code, which is then named.

mod code;
mod interpreter;
mod layout;
mod lines;
mod memory;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

use leak_common::interpreter::{InterpreterFrame, InterpreterProfile};

pub(super) use self::code::PythonCall;
use self::code::{Fingerprint, Header};
use self::interpreter::Interpreter;
use self::memory::Memory;
use super::modules::Modules;
use crate::event::{ProcessKey, Timestamp};

/// How often a process is looked at again at most, while its interpreter starts.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Most calls of one process that are remembered.
const MAX_REMEMBERED: usize = 512;

/// Reads any bytes as what CPython keeps in its memory.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzz(data: &[u8]) {
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

/// What is known of the Python in one process.
#[derive(Debug, Default)]
pub(super) struct PythonProcess {
    found: Option<(Interpreter, Memory)>,
    profile: Option<InterpreterProfile>,
    looked_at: Option<Timestamp>,
    remembered: HashMap<InterpreterFrame, (Fingerprint, PythonCall)>,
}

impl PythonProcess {
    /// Looks for CPython, and for where it keeps its calls, unless that is known or was tried just
    /// now: a process may be seen before its interpreter is ready.
    pub(super) fn look(&mut self, process: ProcessKey, modules: &Modules, now: Timestamp) {
        if self.profile.is_some()
            || self.looked_at.is_some_and(|at| now.since(at) < LOOK_AGAIN_AFTER)
        {
            return;
        }
        self.looked_at = Some(now);
        if self.found.is_none() {
            self.found = Memory::open(process)
                .ok()
                .and_then(|memory| Some((Interpreter::find(modules, &memory)?, memory)));
        }
        self.profile = self.found.as_ref().and_then(|(python, memory)| python.profile(memory));
    }

    /// What the kernel programs need to follow the process's calls.
    pub(super) fn profile(&self) -> Option<InterpreterProfile> {
        self.profile
    }

    /// Names calls that were found through the profile with this tag. One that cannot be named stays
    /// in its place without a name; when none can be, they were no calls.
    pub(super) fn name(
        &mut self,
        frames: &[InterpreterFrame],
        tag: u32,
    ) -> Vec<Option<PythonCall>> {
        if self.profile.is_none_or(|own| own.tag != tag) {
            return Vec::new();
        }
        let calls: Vec<_> = frames.iter().map(|frame| self.name_one(*frame)).collect();
        if calls.iter().all(Option::is_none) { Vec::new() } else { calls }
    }

    fn name_one(&mut self, frame: InterpreterFrame) -> Option<PythonCall> {
        let (python, memory) = self.found.as_ref()?;
        let known = self.remembered.get(&frame);
        if memory.word(frame.pointer).is_none() {
            // The process has exited; what was read before still holds.
            return known.map(|(_, call)| call.clone());
        }
        let header = Header::read(frame.pointer, python, memory)?;
        let fingerprint = header.fingerprint(python)?;
        if let Some((same, call)) = known
            && *same == fingerprint
        {
            return Some(call.clone());
        }
        let call = header.call(frame.position, python, memory)?;
        if self.remembered.len() >= MAX_REMEMBERED {
            self.remembered.clear();
        }
        self.remembered.insert(frame, (fingerprint, call.clone()));
        Some(call)
    }
}
