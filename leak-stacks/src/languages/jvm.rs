//! Java on HotSpot: what its compilers and its interpreter run is followed and named by what the VM
//! says of itself, without an agent and without any flag.
//!
//! `libjvm.so` exports tables of its structures for debuggers. By them the piece of code that holds
//! an address is found in the code cache, and left by its frame's size or, in the interpreter, by
//! its frame pointer. Compilers note for each call which methods they have put into one another
//! there, and an interpreter's frame has its method.
//!
//! What a process's memory claims is checked: a place in compiled code must be one that the
//! compiler noted as a call, its outermost method the one that the code is of, a caller must lie in
//! Java's code again, a method's constants must be its class's own, names must be tagged as text,
//! and every length has a limit. What fails has no name, which is better than a wrong one.
//!
//! One gap is left: a method that was compiled anew, or whose class was unloaded, between the call
//! and its reading. When other code has taken its place, and has a call at the very same address,
//! the frame is named by that. To close it the compiled code's number must be noted at the call.

mod code;
mod description;
mod frames;
mod layout;
mod lines;
#[cfg(any(test, feature = "fuzzing"))]
mod made_up;
mod method;
mod numbers;
mod scopes;
#[cfg(test)]
mod tests;
mod threads;

use std::collections::HashMap;
use std::rc::Rc;

use self::code::{CodeCache, Kind};
use self::description::{Description, EXPORTS};
use self::frames::{Found, Frames};
use self::layout::Layout;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::made_up::fuzz;
use self::method::Method;
use self::scopes::scopes_at;
use crate::binary::facts::{Facts, Source};
use crate::binary::symbol_table::addresses_of;
use crate::bytes::base_name;
use crate::languages::call::{Call, Named};
use crate::languages::language::{Language, Process, Runtime, Unwound};
use crate::languages::target::Target;
use crate::languages::thread_index::ThreadIndex;
use crate::raw::{CopyLength, InterpreterFrame, RuntimeEntry, StackProfile};
use crate::stack;
use crate::unwind::registers::Registers;
use crate::unwind::step::{Position, StackCopy, Step};

/// The file that is the VM.
const LIBRARY: &str = "libjvm.so";
/// Most methods of one process that are remembered.
const MAX_REMEMBERED: usize = 4096;

/// What [`InterpreterFrame::kind`] says of a frame.
const COMPILED: u32 = 1;
const INTERPRETED: u32 = 2;
const STUB: u32 = 3;
/// Something did not fit, so it has no name.
const UNCERTAIN: u32 = 4;

/// The language.
#[derive(Debug)]
pub(crate) struct Java;

impl Language for Java {
    fn find(&mut self, process: &Process<'_>) -> Option<Box<dyn Runtime>> {
        let mut library = process.modules.iter().filter(|mapping| {
            mapping.path.as_deref().is_some_and(|path| base_name(path) == LIBRARY)
        });
        let (bias, exports) = library.find_map(|mapping| {
            let exports = mapping.binary.as_deref()?.facts::<Exports>()?;
            let bias = mapping.start.wrapping_sub(mapping.address_in_file(mapping.start)?);
            Some((bias, exports.0?))
        })?;
        let exports = exports.map(|at| at.wrapping_add(bias));
        let vm = process.memory().and_then(|memory| HotSpot::find(exports, memory));
        Some(Box::new(Jvm { exports, vm }))
    }

    fn value(&self) -> Option<stack::Language> {
        Some(stack::Language::Java)
    }
}

/// Where the library has its tables, in its own numbering.
#[derive(Debug)]
struct Exports(Option<[u64; EXPORTS.len()]>);

impl Facts for Exports {
    fn read(source: &Source<'_>) -> Self {
        let mut addresses = [0; EXPORTS.len()];
        for (address, found) in addresses.iter_mut().zip(addresses_of(source, EXPORTS)) {
            let Some(found) = found else { return Self(None) };
            *address = found;
        }
        Self(Some(addresses))
    }

    fn bytes(&self) -> u64 {
        size_of::<Self>() as u64
    }
}

/// The VM of a process.
#[derive(Debug)]
struct Jvm {
    exports: [u64; EXPORTS.len()],
    /// `None` while it starts, and when its release is not understood.
    vm: Option<HotSpot>,
}

impl Runtime for Jvm {
    fn look_again(&mut self, process: &Process<'_>) {
        if self.vm.is_none() {
            self.vm = process.memory().and_then(|memory| HotSpot::find(self.exports, memory));
        }
    }

    fn profile(&self) -> StackProfile {
        StackProfile { copy_length: CopyLength::Generous, ..StackProfile::default() }
    }

    fn entry_of(&mut self, tid: u32, process: &Process<'_>) -> Option<RuntimeEntry> {
        let vm = self.vm.as_mut()?;
        let (layout, memory) = (vm.layout.threads.as_ref()?, process.memory()?);
        let thread = vm.threads.find(tid, process.now, || threads::list(layout, memory))?;
        let entry = threads::entry_of(thread, tid, &layout.thread, memory)?;
        vm.cache.holds(entry.returns_to).then_some(entry)
    }

    fn step(
        &mut self,
        frame: Position,
        registers: &mut Registers,
        stack: &StackCopy<'_>,
        process: &Process<'_>,
    ) -> Option<Unwound> {
        let vm = self.vm.as_ref()?;
        if frame.innermost || !vm.cache.holds(frame.next) {
            return None;
        }
        let memory = process.memory()?;
        let word = |at| stack.word(at);
        Some(match vm.frames(memory).step(frame.next, registers, &word) {
            Some((found, caller)) => {
                Unwound { step: Step::Caller(caller), frame: Some(noted(found)) }
            }
            None => Unwound { step: Step::End(stack.end()), frame: Some(kept(UNCERTAIN, 0, 0)) },
        })
    }

    fn name_frame(
        &mut self,
        frame: InterpreterFrame,
        process: &Process<'_>,
    ) -> Option<Named<Call>> {
        let vm = self.vm.as_mut()?;
        let memory = process.memory()?;
        let calls = match frame.kind {
            COMPILED => vm.compiled(frame.pointer, frame.position, memory)?,
            INTERPRETED => vm.interpreted(frame.pointer, frame.position, memory)?,
            STUB => Vec::new(),
            _ => return None,
        };
        Some(Named { calls, is_lasting: false })
    }
}

fn kept(kind: u32, pointer: u64, position: u64) -> InterpreterFrame {
    InterpreterFrame { pointer, position, cookie: 0, kind }
}

fn noted(found: Found) -> InterpreterFrame {
    match found {
        Found::Compiled { code, returns_to } => kept(COMPILED, code, returns_to),
        Found::Interpreted { method, instruction } => kept(INTERPRETED, method, instruction),
        Found::Stub => kept(STUB, 0, 0),
    }
}

/// What is known of a VM that has started.
#[derive(Debug)]
struct HotSpot {
    layout: Layout,
    cache: CodeCache,
    call_stub_return: u64,
    remembered: HashMap<u64, Rc<Method>>,
    threads: ThreadIndex,
}

impl HotSpot {
    /// `None` while the VM starts, and when its release is not understood.
    fn find(exports: [u64; EXPORTS.len()], target: &dyn Target) -> Option<Self> {
        let description = Description::read(exports, target)?;
        let layout = Layout::of(&description, target)?;
        let cache = CodeCache::find(&layout, target)?;
        let call_stub_return = target.u64(layout.call_stub_return)?;
        let is_ready = cache.holds(call_stub_return);
        let (remembered, threads) = (HashMap::new(), ThreadIndex::default());
        is_ready.then_some(Self { layout, cache, call_stub_return, remembered, threads })
    }

    fn frames<'a>(&'a self, target: &'a dyn Target) -> Frames<'a> {
        let Self { layout, cache, call_stub_return, .. } = self;
        Frames { cache, layout, call_stub_return: *call_stub_return, target }
    }

    /// The calls at a place in compiled code, innermost first.
    fn compiled(&mut self, code: u64, returns_to: u64, target: &dyn Target) -> Option<Vec<Call>> {
        let blob = self.cache.blob(returns_to, &self.layout, target)?;
        if blob.address != code {
            return None;
        }
        if blob.kind == Kind::NativeWrapper {
            let method = self.layout.compiled.method.read(code, target)?;
            return self.call(method, None, target);
        }
        if blob.kind != Kind::Compiled {
            return None;
        }
        let mut calls = Vec::new();
        for (depth, scope) in scopes_at(&blob, returns_to, &self.layout, target)?.iter().enumerate()
        {
            let method = self.method(scope.method, target)?;
            let place = scope.place.filter(|&place| method.has(place));
            // What another method was put into calls it there.
            if depth > 0 && !place.is_some_and(|place| method.calls_at(place, target)) {
                return None;
            }
            calls.extend(call(&method, place));
        }
        Some(calls)
    }

    /// The call of an interpreted method.
    fn interpreted(
        &mut self,
        method: u64,
        instruction: u64,
        target: &dyn Target,
    ) -> Option<Vec<Call>> {
        let known = self.method(method, target)?;
        let place = known.place_of(instruction);
        if place.is_none() && !known.is_native() {
            return None;
        }
        self.call(method, place, target)
    }

    fn call(&mut self, method: u64, place: Option<u32>, target: &dyn Target) -> Option<Vec<Call>> {
        let method = self.method(method, target)?;
        Some(call(&method, place).into_iter().collect())
    }

    /// The method at an address, read unless it is known and still the same.
    fn method(&mut self, address: u64, target: &dyn Target) -> Option<Rc<Method>> {
        let identity = Method::identity_at(address, &self.layout, target)?;
        if let Some(known) = self.remembered.get(&address)
            && known.is(identity)
        {
            return Some(Rc::clone(known));
        }
        let method = Rc::new(Method::read(address, &self.layout, target)?);
        if self.remembered.len() >= MAX_REMEMBERED {
            self.remembered.clear();
        }
        self.remembered.insert(address, Rc::clone(&method));
        Some(method)
    }
}

/// A call of a method; `None` when it is one that Java's own traces leave out.
fn call(method: &Method, place: Option<u32>) -> Option<Call> {
    (!method.is_hidden).then(|| Call {
        function: Some(method.name.to_string()),
        // Java's libraries are known by their packages.
        module: None,
        file: method.file.as_ref().map(ToString::to_string),
        line: place.and_then(|place| method.line_at(place)),
        offset: place.unwrap_or(0).into(),
    })
}
