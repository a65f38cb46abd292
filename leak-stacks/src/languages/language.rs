//! What a language must tell, so that the calls of its programs are found and named.
//!
//! # How the parts are used
//!
//! Each [`Language`] of [the registry](crate::languages::registry) is asked to [find] its runtime
//! in each process that is seen. What it finds, a [`Runtime`], belongs to one program of one
//! process, and is asked:
//!
//! 1. for the [profile]: what the kernel programs have to note at the time of a call, because it
//!    cannot be found in the copied stack later;
//! 2. for each frame of a stack to [step] to its caller, before the native rules are tried: frames
//!    of code compiled at run time, and of interpreters that are found by their frame pointer;
//! 3. to name frames: [by their address] in the runtime's code, or [by a frame] that the kernel
//!    noted or that its own step has found;
//! 4. which native frames [the noted frames stand for]: the evaluator's, which are left out.
//!
//! # What may be relied on
//!
//! A stack is often resolved long after the call, while the process runs on. So what is read of its
//! memory may have changed: check types and cookies, and give no name rather than a wrong one. All
//! of it is untrusted: bound every length, depth and loop. A panic costs the one stack.
//!
//! [find]: Language::find
//! [profile]: Runtime::profile
//! [step]: Runtime::step
//! [by their address]: Runtime::name_code
//! [by a frame]: Runtime::name_frame
//! [the noted frames stand for]: Runtime::is_evaluator

use std::fmt::Debug;

use crate::binary::modules::Modules;
use crate::binary::store::Binary;
use crate::binary::symbols::Symbol;
use crate::languages::call::{Call, Named};
use crate::process::ProcessKey;
use crate::process::memory::Memory;
use crate::raw::{InterpreterFrame, RawStack, RuntimeEntry, StackProfile};
use crate::stack::{self, Frame};
use crate::time::Timestamp;
use crate::unwind::registers::Registers;
use crate::unwind::step::{Position, StackCopy, Step};

/// A language, or a kind of runtime: what is known of it without a process.
///
/// There is one value of it for each resolver, which may keep what its processes share.
pub(crate) trait Language: Debug {
    /// Looks for the runtime in a process.
    ///
    /// It is asked when the process is first seen, again when its mappings are read anew, and until
    /// it finds something from time to time after that: a process may be seen before it has loaded
    /// its runtime. So it must be cheap: look at the names of what is mapped first, and read
    /// no file and no memory of processes that do not run it. What is worked out from a binary
    /// belongs in its [facts](crate::binary::facts::Facts), which processes share.
    fn find(&mut self, process: &Process<'_>) -> Option<Box<dyn Runtime>>;

    /// The language that a stack with the runtime's calls is said to be written in; `None` for what
    /// serves several, which is then told by the stack's modules and the executable's name.
    fn value(&self) -> Option<stack::Language>;

    /// What a user can do, in one line, when the names of its calls cannot be had; `None` when they
    /// can be had without anybody's help.
    fn advice(&self) -> Option<&'static str> {
        None
    }
}

/// The runtime of a language in one program of one process.
///
/// All methods but those that cannot be answered for every runtime have an answer by default, so
/// that a runtime implements what it has: a walk of its own, noted frames, names, or only a name.
pub(crate) trait Runtime: Debug {
    /// Looks again at what was not ready before, as when an interpreter was still starting. Called
    /// before its answers are needed, though not more often than every 200 ms; must be cheap.
    fn look_again(&mut self, _process: &Process<'_>) {}

    /// What whoever copies the process's stacks should know: how much to copy, and which frames to
    /// note at the time of the call. It may become known, and change, after a while.
    ///
    /// Noted frames reach [`Self::name_frame`] only if their tag is that of the present profile.
    fn profile(&self) -> StackProfile {
        StackProfile::default()
    }

    /// The calls of a thread that is blocked now, as the kernel programs would note them at the
    /// time of a call; `None`: the thread runs none, or they cannot be had.
    fn calls_of(&mut self, _tid: u32, _process: &Process<'_>) -> Option<ThreadCalls> {
        None
    }

    /// Where a thread that is blocked now has left the runtime's code, as the runtime itself notes
    /// it; `None`: it has not, or nothing is noted. It serves where the native rules do not lead
    /// that far.
    fn entry_of(&mut self, _tid: u32, _process: &Process<'_>) -> Option<RuntimeEntry> {
        None
    }

    /// Goes from a frame in the runtime's code to its caller.
    ///
    /// It is asked for every frame of every stack, so it must first decide by the address, cheaply,
    /// whether the frame is its own; `None` if not, and the native rules are used. Otherwise it
    /// changes `registers` to the caller's: instruction pointer, stack pointer (which must grow),
    /// and those of the callee-saved registers that it knows (the rest must be forgotten, see
    /// [`Registers::leave`]). Words are read from `stack`, which holds the bytes as they were at
    /// the time of the call; when one is missing there, the step is `Step::End(stack.end())`.
    ///
    /// What names the frame must be noted while it is at hand: registers and stack slots are gone
    /// when names are asked for.
    fn step(
        &mut self,
        _frame: Position,
        _registers: &mut Registers,
        _stack: &StackCopy<'_>,
        _process: &Process<'_>,
    ) -> Option<Unwound> {
        None
    }

    /// Names the code at an address; `None`: it is not the runtime's, or nobody knows.
    ///
    /// Two stacks count as the same by the place of such code in its file or, where it is in none,
    /// by the innermost call's name and source file.
    fn name_code(&mut self, _code: &Code<'_>, _process: &Process<'_>) -> Option<Named<Symbol>> {
        None
    }

    /// Names a frame that the kernel noted through this runtime's profile, or that its own step has
    /// found. `None`: it cannot be named, and keeps its place without a name.
    ///
    /// Two stacks count as the same by function, source file and line of all such calls.
    fn name_frame(
        &mut self,
        _frame: InterpreterFrame,
        _process: &Process<'_>,
    ) -> Option<Named<Call>> {
        None
    }

    /// Whether a native frame is one that noted frames stand for, such as the interpreter's main
    /// loop. They take the place of the innermost one, and native frames between that and the
    /// outermost one are left out. It is asked only when frames were noted.
    fn is_evaluator(&self, _function: &str) -> bool {
        false
    }

    /// The same by its code, for runtimes that are stripped of their names.
    fn is_evaluator_code(&self, _code: &Code<'_>) -> bool {
        false
    }

    /// Whether noted frames also stand for code that no file backs and nobody can name: the runtime
    /// compiles what they are of.
    fn compiles_noted(&self) -> bool {
        false
    }

    /// The number of the lightweight thread that ran: a goroutine, a fiber, a virtual thread.
    fn light_thread(&mut self, _raw: &RawStack, _process: &Process<'_>) -> Option<u64> {
        None
    }

    /// Whether the whole program is written in this language, so that stacks are, too, whatever
    /// they run through.
    fn is_whole_program(&self) -> bool {
        false
    }

    /// Whether the code that the runtime compiles keeps frame pointers, where [`Self::step`] leaves
    /// it to them: `None`: it compiles none, or leaves none to them.
    fn keeps_frame_pointers(&self) -> Option<bool> {
        None
    }

    /// Makes the named frames of a stack more readable.
    fn tidy(&self, _frames: &mut Vec<Frame>) {}
}

/// One program of a process, as far as it is known.
#[derive(Debug)]
pub(crate) struct Process<'a> {
    /// Which process. It may be gone.
    pub(crate) key: ProcessKey,
    /// Its executable mappings and their binaries.
    pub(crate) modules: &'a Modules,
    /// Its memory, as it is now.
    pub(crate) memory: &'a LazyMemory,
    /// When this is asked.
    pub(crate) now: Timestamp,
}

/// A process's memory, opened when it is first needed.
#[derive(Debug, Default)]
pub(crate) struct LazyMemory(std::cell::OnceCell<Memory>);

impl Process<'_> {
    /// Its memory; `None` when it cannot be opened, as of a process that has exited.
    pub(crate) fn memory(&self) -> Option<&Memory> {
        if let Some(open) = self.memory.0.get() {
            return Some(open);
        }
        let memory = Memory::open(self.key).ok()?;
        Some(self.memory.0.get_or_init(|| memory))
    }
}

/// The calls of a thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ThreadCalls {
    /// Innermost first.
    pub(crate) frames: Vec<InterpreterFrame>,
    /// Whether they are all that the thread has.
    pub(crate) are_whole: bool,
}

/// What a runtime's step led to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unwound {
    /// Where it led.
    pub(crate) step: Step,
    /// What [`Runtime::name_frame`] needs to name the frame that was left; `None`: its address is
    /// enough, for [`Runtime::name_code`].
    pub(crate) frame: Option<InterpreterFrame>,
}

/// Code that a frame is in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Code<'a> {
    /// An address inside the frame's current instruction.
    pub(crate) address: u64,
    /// The file that is mapped there, and the address in the file's own numbering; `None` for
    /// memory that no file backs, and for a file that cannot be used.
    pub(crate) in_file: Option<(&'a Binary, u64)>,
}
