//! JavaScript on V8, as in Node.js: what its interpreter and its compilers run is followed and
//! named by what V8 says of itself, without any flag.
//!
//! V8's binary exports constants for debuggers, which tell where its objects and frames have what.
//! Every frame of JavaScript keeps a frame pointer, and beside it its function and, unless it was
//! optimised, its bytecode. Optimised code is found by its address; it has notes of which functions
//! were compiled into one another.
//!
//! V8's collector moves objects, and a stack may be read long after the call. So what lies where a
//! frame's words point to must be what they pointed to: of the right type, and such that function,
//! bytecode and code agree. What does not has no name, which is better than a wrong one.
//!
//! V8 works out the lines of a function when something asks for a trace that it is in, such as an
//! error. Until then it is told by the line where it begins.

mod code;
mod frames;
mod function;
mod heap;
mod index;
mod layout;
#[cfg(any(test, feature = "fuzzing"))]
mod made_up;
mod metadata;
mod positions;
mod safepoints;
mod script;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use self::code::{BytecodeSizes, Code, CodeMaps, Place, bytecode_of, place_in_script};
use self::frames::{Found, Frame, Region};
use self::function::{Function, OuterNames};
use self::heap::Heap;
use self::index::Index;
use self::layout::Layout;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::made_up::fuzz;
use self::metadata::{Exports, Metadata};
use self::script::Scripts;
use crate::binary::modules::Mapping;
use crate::culprit::language_of;
use crate::languages::call::{Call, Named};
use crate::languages::language::{Language, Process, Runtime, Unwound};
use crate::languages::target::Target;
use crate::processor::FRAME_POINTER;
use crate::raw::{CopyLength, InterpreterFrame, StackProfile};
use crate::stack;
use crate::unwind::registers::Registers;
use crate::unwind::rules::FrameRules;
use crate::unwind::step::{Position, StackCopy, Step};

/// The register in which V8's code has the roots (`kRootRegister`): r13.
const ROOTS: gimli::Register = gimli::Register(13);
/// Longest table of bytecodes' lengths.
const MAX_BYTECODE_SIZES: u64 = 3 * 256;

/// What [`InterpreterFrame::kind`] says of a frame.
const BYTECODE: u32 = 1;
const OPTIMISED: u32 = 2;

/// The language.
#[derive(Debug)]
pub(crate) struct JavaScript;

impl Language for JavaScript {
    fn find(&mut self, process: &Process<'_>) -> Option<Box<dyn Runtime>> {
        let mut paths = process.modules.iter().filter_map(|mapping| mapping.path.as_deref());
        paths.any(is_its).then_some(())?;
        let mut node = Node { vm: None, roots: None };
        node.look_again(process);
        Some(Box::new(node))
    }

    fn value(&self) -> Option<stack::Language> {
        Some(stack::Language::Node)
    }

    fn advice(&self) -> Option<&'static str> {
        Some("start it with --perf-basic-prof --interpreted-frames-native-stack")
    }
}

/// Node.js, or what is like it, in a process.
#[derive(Debug)]
struct Node {
    /// `None` while it starts, and when its release is not understood.
    vm: Option<V8>,
    /// Of the thread whose stack is walked: what V8's code has the isolate's roots by.
    roots: Option<u64>,
}

impl Runtime for Node {
    fn look_again(&mut self, process: &Process<'_>) {
        match &mut self.vm {
            Some(vm) => vm.index.tidy(process.now),
            None => self.vm = V8::find(process),
        }
    }

    fn profile(&self) -> StackProfile {
        // libuv keeps 12 KiB of events on the stack of each loop.
        StackProfile { copy_length: CopyLength::Most, ..StackProfile::default() }
    }

    fn step(
        &mut self,
        frame: Position,
        registers: &mut Registers,
        stack: &StackCopy<'_>,
        process: &Process<'_>,
    ) -> Option<Unwound> {
        let Self { vm, roots } = self;
        let vm = vm.as_mut()?;
        if frame.innermost {
            *roots = None;
            return None;
        }
        let mapping = process.modules.find(frame.address)?;
        let region = match mapping.path.as_deref() {
            None => Region::Compiled,
            Some(path) if *path == *vm.library => Region::Library,
            Some(_) => return None,
        };
        let bp = registers.get(FRAME_POINTER);
        let bp = bp.filter(|bp| *bp >= registers.sp() && bp.is_multiple_of(8))?;
        let word = |at| stack.word(at);
        let (caller, above) = (word(bp.checked_add(8)?)?, bp.checked_add(16)?);
        let V8 { layout, bytecode_sizes, index, maps, .. } = vm;
        let own = Frame {
            bp,
            sp: registers.sp(),
            returns_to: frame.next,
            region,
            word: &word,
            sizes: bytecode_sizes,
            roots: roots.or(registers.get(ROOTS)),
            now: process.now,
        };
        let found = own.find(index, maps, Heap { layout, target: process.memory()? });
        // What V8 has not compiled at run time, and no compiler of C++ either, is its own.
        let is_builtin = || region == Region::Library && !has_rules(mapping, frame.address);
        if found.is_none() && !(own.is_marked(layout) && is_builtin()) {
            return None;
        }
        *roots = own.roots;
        registers.leave(caller, above, word(bp));
        Some(Unwound { step: Step::Caller(caller), frame: found.map(noted) })
    }

    fn name_frame(
        &mut self,
        frame: InterpreterFrame,
        process: &Process<'_>,
    ) -> Option<Named<Call>> {
        let vm = self.vm.as_mut()?;
        let calls = vm.calls(frame, process.memory()?)?;
        Some(Named { calls, is_lasting: false })
    }

    fn keeps_frame_pointers(&self) -> Option<bool> {
        Some(true)
    }
}

/// Whether a file may be V8's, by its name.
fn is_its(path: &str) -> bool {
    language_of([path].into_iter(), None) == stack::Language::Node
}

/// Whether a binary has unwind rules for an address.
fn has_rules(mapping: &Mapping, address: u64) -> bool {
    let rules = || {
        let rules = mapping.binary.as_deref()?.facts::<FrameRules>()?;
        Some(rules.cover(mapping.address_in_file(address)?))
    };
    rules().unwrap_or(true)
}

fn noted(found: Found) -> InterpreterFrame {
    let (kind, pointer, position) = match found {
        Found::Bytecode { shared, offset } => (BYTECODE, shared, offset.into()),
        Found::Optimised { code, returns_to } => (OPTIMISED, code, returns_to),
    };
    InterpreterFrame { pointer, position, cookie: 0, kind }
}

/// What is known of V8 in a process.
#[derive(Debug)]
struct V8 {
    /// The path of its binary.
    library: Rc<str>,
    layout: Layout,
    bytecode_sizes: BytecodeSizes,
    scripts: Scripts,
    outer_names: OuterNames,
    index: Index,
    maps: CodeMaps,
}

impl V8 {
    /// `None` when there is none, or its release is not understood.
    fn find(process: &Process<'_>) -> Option<Self> {
        // What tells of it may be in the executable or in a library.
        let mut mappings = process.modules.iter().filter_map(|mapping| {
            let path = mapping.path.as_ref().filter(|path| is_its(path))?;
            let exports = mapping.binary.as_deref()?.facts::<Exports>()?;
            let bias = mapping.start.wrapping_sub(mapping.address_in_file(mapping.start)?);
            exports.is_v8().then_some((path, exports, bias))
        });
        let (path, exports, bias) = mappings.next()?;
        Self::read(Rc::clone(path), &exports, bias, process.memory()?)
    }

    fn read(library: Rc<str>, exports: &Exports, bias: u64, target: &dyn Target) -> Option<Self> {
        let layout = Layout::of(&Metadata::read(exports, bias, target))?;
        let sizes = exports.bytecode_sizes.filter(|(_, length)| *length <= MAX_BYTECODE_SIZES);
        let sizes = sizes.and_then(|(address, length)| {
            target.bytes(address.wrapping_add(bias), usize::try_from(length).ok()?)
        });
        let bytecode_sizes = BytecodeSizes::new(sizes.unwrap_or_default());
        Some(Self::new(library, layout, bytecode_sizes))
    }

    fn new(library: Rc<str>, layout: Layout, bytecode_sizes: BytecodeSizes) -> Self {
        Self {
            library,
            layout,
            bytecode_sizes,
            scripts: Scripts::default(),
            outer_names: OuterNames::default(),
            index: Index::default(),
            maps: CodeMaps::default(),
        }
    }

    /// The calls that a frame stands for, innermost first.
    fn calls(&mut self, frame: InterpreterFrame, target: &dyn Target) -> Option<Vec<Call>> {
        let Self { layout, scripts, outer_names, .. } = self;
        let heap = Heap { layout, target };
        let places = match frame.kind {
            BYTECODE => {
                let shared = frame.pointer;
                let offset = u32::try_from(frame.position).ok()?;
                let offset = place_in_script(bytecode_of(shared, heap)?, offset, heap);
                vec![Place { shared, offset }]
            }
            OPTIMISED => Code::at(frame.pointer, heap)?.places(frame.position, heap)?,
            _ => return None,
        };
        places.into_iter().map(|place| call(place, scripts, outer_names, heap)).collect()
    }
}

fn call(
    place: Place,
    scripts: &mut Scripts,
    outer_names: &mut OuterNames,
    heap: Heap<'_>,
) -> Option<Call> {
    let function = Function::read(place.shared, heap)?;
    let at = place.offset.or(function.range.as_ref().map(|range| range.start));
    let line = function.script.zip(at).and_then(|(script, at)| scripts.line(script, at, heap));
    Some(Call {
        function: Some(outer_names.qualify(&function, place.shared, heap)),
        // Node.js's libraries are known by their files.
        module: None,
        file: function.script.and_then(|script| script::name(script, heap)),
        line,
        offset: at.unwrap_or(0).into(),
    })
}
