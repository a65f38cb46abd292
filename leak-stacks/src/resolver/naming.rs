//! From the frames of a walk to a named stack.

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use crate::binary::modules::Modules;
use crate::binary::store::{Binary, Usability};
use crate::binary::symbols::{Symbol, Symbols};
use crate::culprit::{application, language_of};
use crate::guarded::guarded;
use crate::languages::call::Call;
use crate::languages::language::{Code, Process};
use crate::languages::runtimes::{NotedCalls, Runtimes};
use crate::raw::RawStack;
use crate::resolver::Resolver;
use crate::resolver::assembly::{Assembled, Assembly, NativeCode};
use crate::resolver::identity::Identity;
use crate::resolver::programs::{KnownBy, Program};
use crate::resolver::shared::SharedStack;
use crate::stack::{Frame, Language, Quality, Stack, StackId};
use crate::time::Timestamp;
use crate::truncation::TruncationReason;
use crate::unwind::missing_frames::certain_frames;
use crate::unwind::rules::{FrameRules, is_signal_return};
use crate::unwind::step::End;
use crate::unwind::walk::{MAX_DEPTH, Walk, WalkedFrame};

/// Most stacks that are shared among processes.
const MAX_STACKS: usize = 32 * 1024;
/// Functions that have no caller, though they may not say so.
const ROOTS: [&str; 8] = [
    "_start",
    "clone",
    "clone3",
    "__clone",
    "__clone3",
    "start_thread",
    "_start_c",
    "thread_start",
];

/// What debuggers call the frame between a signal's handler and the function that it interrupted.
const SIGNAL_HANDLER_CALLED: &str = "<signal handler called>";

/// A stack with names, before it is judged.
struct NamedStack {
    assembled: Assembled,
    /// Whether every frame means the same for as long as the process runs its program.
    is_lasting: bool,
    /// Whether noted calls have taken the place of native frames, so that nothing is missing
    /// further out.
    noted_suffice: bool,
    /// The runtime's language that named frames in it.
    language: Option<Language>,
}

impl Resolver {
    /// The stack with names, and whether its noted calls make up for what the copy lacks.
    pub(crate) fn named(
        &mut self,
        raw: &RawStack,
        walk: Walk,
        now: Timestamp,
    ) -> Option<(Arc<Stack>, bool)> {
        let program = self.processes.get_mut(&raw.process)?.of_mut(raw.image)?;
        let walk = certain(raw, walk, program);
        let noted = {
            let (runtimes, process) = program.parts(now);
            runtimes.name_noted(raw, &process)
        };
        let by = known_by(raw, walk, &noted);
        if let Some(stack) = program.known_stack(&by) {
            let noted_suffice = noted.are_whole && stack.quality == Quality::Complete;
            return Some((stack, noted_suffice));
        }
        for frame in &by.frames {
            if let Some(binary) = program.modules.binary_at(frame.address) {
                self.binaries.touch(binary);
            }
        }
        let has_noted = !noted.calls.is_empty();
        let NamedStack { assembled, is_lasting, noted_suffice, language } = {
            let (runtimes, process) = program.parts(now);
            name(&by.frames, noted, runtimes, &process)
        };
        let Assembled { mut frames, identity } = assembled;
        program.runtimes.tidy(&mut frames);
        let is_whole = if has_noted { noted_suffice } else { is_at_root(by.end, &frames) };
        let quality = quality_of(&frames, is_whole);
        let reason = (quality != Quality::Complete)
            .then(|| truncation_reason(by.end, &by.frames, raw, &program.modules));
        let language = program
            .runtimes
            .language_of_program()
            .or(language)
            .unwrap_or_else(|| language_by_modules(&frames, &program.modules));
        let stack = share(
            &mut self.stacks,
            Stack {
                id: StackId(identity),
                quality,
                truncation: reason,
                language,
                frames,
                culprit: None,
                callers: Vec::new(),
            },
            |stack| application(&stack.frames, stack.language, &self.driver_frames),
        );
        if is_lasting {
            program.remember(by, &stack);
        }
        Some((stack, noted_suffice))
    }
}

/// The walk up to the first frame after which calls may be missing.
fn certain(raw: &RawStack, walk: Walk, program: &Program) -> Walk {
    let Walk { mut frames, mut end } = walk;
    let modules = &program.modules;
    let is_compiled = |address| {
        modules
            .find(address)
            .is_some_and(|m| m.binary.as_ref().is_none_or(|binary| binary.elf().is_none()))
    };
    let by_frame_pointer =
        |frame: &WalkedFrame| frame.left_by.is_none() && is_compiled(frame.address);
    if !frames.iter().any(by_frame_pointer) || program.runtimes.keep_frame_pointers() {
        return Walk { frames, end };
    }
    let certain = certain_frames(raw, &frames, is_compiled);
    if certain < frames.len() {
        frames.truncate(certain);
        end = End::Lost;
    }
    Walk { frames, end }
}

/// What the resolved stack is remembered by.
fn known_by(raw: &RawStack, walk: Walk, noted: &NotedCalls) -> KnownBy {
    let hash = if noted.calls.is_empty() { 0 } else { Identity::of_calls(&noted.calls) };
    KnownBy {
        frames: walk.frames.into_boxed_slice(),
        noted: hash,
        noted_are_whole: noted.are_whole,
        end: walk.end,
        wanted_most: raw.wanted_most,
    }
}

/// Names all frames.
fn name(
    frames: &[WalkedFrame],
    mut noted: NotedCalls,
    runtimes: &mut Runtimes,
    process: &Process<'_>,
) -> NamedStack {
    let mut language = runtimes.language_of_noted(&noted);
    let mut is_lasting = true;
    let (are_whole, has_noted) = (noted.are_whole, !noted.calls.is_empty());
    let mut assembly = Assembly::new(std::mem::take(&mut noted.calls));
    for frame in frames {
        if let Some(left_by) = frame.left_by
            && let Some(token) = left_by.frame
        {
            language = language.or(runtimes.language_of(left_by.runtime));
            let named = runtimes.name_frame(left_by.runtime, token, process);
            is_lasting &= named.as_ref().is_some_and(|named| named.is_lasting);
            assembly.add_calls(named.map_or_else(|| vec![Call::default()], |named| named.calls));
            continue;
        }
        let code = Code { address: frame.address, in_file: in_file(frame.address, process) };
        if has_noted && runtimes.is_evaluator_code(&noted, &code) {
            assembly.add_evaluator();
            continue;
        }
        let NamedCode { code, symbols, is_left_out, is_lasting: lasts } =
            name_code(frame.address, runtimes, process);
        is_lasting &= lasts;
        let is_evaluator = |s: &Symbol| {
            s.function.as_ref().is_some_and(|name| runtimes.is_evaluator(&noted, Some(name)))
        };
        let is_nameless = symbols.is_empty() && !is_left_out && code.in_file.is_none();
        if has_noted
            && (symbols.iter().any(is_evaluator)
                || is_nameless && runtimes.is_evaluator(&noted, None))
        {
            assembly.add_evaluator();
        } else if !is_left_out {
            assembly.add_code(code, &symbols);
        }
    }
    let noted_suffice = are_whole && assembly.has_placed_noted();
    NamedStack { assembled: assembly.finish(), is_lasting, noted_suffice, language }
}

/// The binary that an address lies in, and the address as the binary numbers it.
fn in_file<'a>(address: u64, process: &Process<'a>) -> Option<(&'a Binary, u64)> {
    let mapping = process.modules.find(address)?;
    mapping.binary.as_deref().zip(mapping.address_in_file(address))
}

/// The code of a frame, named.
pub(crate) struct NamedCode<'a> {
    code: NativeCode<'a>,
    /// Innermost first; none if it has no name.
    pub(crate) symbols: Rc<[Symbol]>,
    /// A runtime says that the frame is none of the program's.
    is_left_out: bool,
    is_lasting: bool,
}

/// Names code by the first of these that knows it: the signal return trampoline, a runtime, the
/// binary's symbols.
pub(crate) fn name_code<'a>(
    address: u64,
    runtimes: &mut Runtimes,
    process: &Process<'a>,
) -> NamedCode<'a> {
    let in_file = in_file(address, process);
    let path = process.modules.find(address).and_then(|mapping| mapping.path.as_deref());
    // Some runtimes keep what they compile in memory that looks like a file.
    let module = path.filter(|path| in_file.is_some() || !is_memory(path));
    let code = NativeCode { module, in_file: in_file.map(|(_, at)| at), address };
    let by_symbols =
        |symbols| NamedCode { code, symbols, is_left_out: false, is_lasting: module.is_some() };
    if let Some((binary, at)) = in_file
        && guarded(|| is_signal_return(binary, at)) == Some(true)
    {
        return by_symbols(signal_handler_called());
    }
    match runtimes.name_code(&Code { address, in_file }, process) {
        Some(named) => NamedCode {
            code: NativeCode { module: module.filter(|_| in_file.is_some()), ..code },
            is_left_out: named.calls.is_empty(),
            symbols: named.calls.into(),
            is_lasting: named.is_lasting,
        },
        None => by_symbols(in_file.map(|(binary, at)| symbols_at(binary, at)).unwrap_or_default()),
    }
}

/// A binary's symbols, innermost first; none when the parser fails.
fn symbols_at(binary: &Binary, address: u64) -> Rc<[Symbol]> {
    binary.facts::<Symbols>().map(|symbols| symbols.at(address)).unwrap_or_default()
}

fn signal_handler_called() -> Rc<[Symbol]> {
    let function = Some(SIGNAL_HANDLER_CALLED.to_owned());
    Rc::new([Symbol { function, ..Symbol::default() }])
}

/// Whether a mapping of this path is memory that the kernel shows as a file.
fn is_memory(path: &str) -> bool {
    ["/dev/zero", "/memfd:", "/SYSV", "/dev/shm/"].iter().any(|start| path.starts_with(start))
}

/// Whether a walk that ended so has reached the thread's first function.
fn is_at_root(end: End, frames: &[Frame]) -> bool {
    match end {
        End::Root => true,
        End::MaybeRoot | End::Unmapped | End::Lost | End::CopyTooShort => {
            let last = frames.last().and_then(|f| f.function.as_deref());
            last.is_some_and(|name| ROOTS.contains(&name))
        }
    }
}

fn quality_of(frames: &[Frame], is_whole: bool) -> Quality {
    let is_named = frames.iter().any(|f| f.function.is_some());
    match (is_named || frames.len() > 1, is_whole) {
        (false, _) => Quality::None,
        (true, true) => Quality::Complete,
        (true, false) => Quality::Truncated,
    }
}

/// Why a stack ended before its thread's first function, by the code where it did.
fn truncation_reason(
    end: End,
    frames: &[WalkedFrame],
    raw: &RawStack,
    modules: &Modules,
) -> TruncationReason {
    match end {
        End::CopyTooShort if raw.wanted_most => return TruncationReason::CopyLimit,
        End::CopyTooShort => return TruncationReason::CopyTooShort,
        End::Unmapped => return TruncationReason::UnmappedAddress,
        End::Lost if frames.len() >= MAX_DEPTH => return TruncationReason::TooManyCalls,
        End::Root | End::MaybeRoot | End::Lost => {}
    }
    let Some(last) = frames.last() else { return TruncationReason::Unfollowable };
    let Some(mapping) = modules.find(last.address) else { return TruncationReason::Unfollowable };
    match (&mapping.binary, &mapping.path) {
        (Some(binary), _) => reason_in(binary, last.left_by.is_some()),
        (None, Some(_)) => TruncationReason::UnreadableFile,
        (None, None) => TruncationReason::RuntimeCode,
    }
}

/// Why a stack ended in the code of a binary.
fn reason_in(binary: &Binary, left_by_runtime: bool) -> TruncationReason {
    match binary.usability() {
        Usability::Unresponsive => TruncationReason::UnresponsiveFile,
        Usability::Unusable => TruncationReason::UnreadableFile,
        Usability::Usable => {
            let has_rules = || {
                let rules = binary.known_facts::<FrameRules>();
                rules.is_some_and(|rules| rules.is_present())
            };
            if left_by_runtime || has_rules() {
                TruncationReason::Unfollowable
            } else {
                TruncationReason::NoUnwindInformation
            }
        }
    }
}

fn language_by_modules(frames: &[Frame], modules: &Modules) -> Language {
    let of_frames = frames.iter().filter_map(|f| f.module.as_deref());
    language_of(of_frames, modules.executable_path.as_deref())
}

/// The stack as it is shared by all processes that have the same one; its frames of the application
/// are looked for when it is new.
fn share(
    stacks: &mut HashSet<SharedStack>,
    stack: Stack,
    application: impl FnOnce(&Stack) -> Vec<usize>,
) -> Arc<Stack> {
    if let Some(SharedStack(known)) = stacks.get(&stack.id)
        && (known.quality, known.truncation) == (stack.quality, stack.truncation)
        && known.frames == stack.frames
    {
        return Arc::clone(known);
    }
    let mut application = application(&stack).into_iter();
    let culprit = application.next();
    let stack = Arc::new(Stack { culprit, callers: application.collect(), ..stack });
    if stacks.len() < MAX_STACKS {
        stacks.insert(SharedStack(Arc::clone(&stack)));
    }
    stack
}
