//! From addresses to a named stack, told once and remembered.

use std::rc::Rc;
use std::sync::Arc;

use leak_common::stack::MAX_STACK;

use super::Resolver;
use super::images::Known;
use super::shared::SharedStack;
use crate::event::{StackId, Timestamp};
use crate::stacks::assemble::{Assembled, Assembly, hash_of};
use crate::stacks::binary::Binary;
use crate::stacks::culprit::{culprit, language_of};
use crate::stacks::fold::fold;
use crate::stacks::modules::Modules;
use crate::stacks::raw::RawStack;
use crate::stacks::shortfall::Shortfall;
use crate::stacks::skipped::{keeps_frame_pointers, sure_frames};
use crate::stacks::symbolize::Symbol;
use crate::stacks::unwind::{End, MAX_DEPTH, Walk};
use crate::stacks::{Language, Quality, Stack, guarded};

/// Most different stacks of one process that are remembered by their addresses.
const MAX_KNOWN_PER_PROCESS: usize = 2048;
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

impl Resolver {
    /// The stack with names, and whether its Python calls make up for what the copy lacks.
    pub(super) fn symbolized(
        &mut self,
        raw: &RawStack,
        walk: Walk,
        now: Timestamp,
    ) -> Option<(Arc<Stack>, bool)> {
        let state = self.processes.get_mut(&raw.process)?.of_mut(raw.image)?;
        let Walk { mut addresses, mut end } = walk;
        let sure = sure_of(raw, &addresses, &state.modules);
        if sure < addresses.len() {
            addresses.truncate(sure);
            end = End::Lost;
        }
        let calls = state.python.name(&raw.interpreter_frames, raw.interpreter_tag);
        let python_is_whole = raw.interpreter_whole && !calls.is_empty();
        let python = if calls.is_empty() { 0 } else { hash_of(&calls) };
        let key = Known {
            native: addresses.into_boxed_slice(),
            python,
            python_is_whole,
            end,
            is_longest: is_longest(raw),
        };
        if let Some(stack) = state.known.get(&key) {
            return Some((
                Arc::clone(stack),
                python_is_whole && stack.quality == Quality::Complete,
            ));
        }
        let mut assembly = Assembly::new(calls);
        for &address in &key.native {
            let Some(mapping) = state.modules.find(address) else { continue };
            let module = mapping.path.as_deref();
            let in_file = mapping.address_in_file(address);
            let (module, symbols) = match (&mapping.binary, in_file) {
                (Some(binary), Some(in_file)) => {
                    self.binaries.touch(binary);
                    (module, symbols_at(binary, in_file))
                }
                // Some runtimes keep what they compile in memory that is a file by its looks.
                _ => match self.perf_maps.at(raw.process, address, now) {
                    Some(symbol) => (None, [(*symbol).clone()].into()),
                    None => (module.filter(|path| !is_memory(path)), [].into()),
                },
            };
            assembly.add_native(module, in_file, &symbols, address);
        }
        let is_lasting = assembly.is_lasting;
        let is_python = assembly.has_python();
        // What a short copy lacks further out is the interpreter's.
        let python_suffices = python_is_whole && assembly.has_placed_python();
        let Assembled { mut frames, identity } = assembly.finish();
        fold(&mut frames);
        let named = frames.iter().any(|f| f.function.is_some());
        let at_root = match end {
            _ if is_python => python_suffices,
            End::Root => true,
            End::MaybeRoot | End::Unmapped | End::Lost | End::CopyTooShort => {
                let last = frames.last().and_then(|f| f.function.as_deref());
                last.is_some_and(|name| ROOTS.contains(&name))
            }
        };
        let quality = match (named || frames.len() > 1, at_root) {
            (false, _) => Quality::None,
            (true, true) => Quality::Complete,
            (true, false) => Quality::Truncated,
        };
        let shortfall = (quality != Quality::Complete)
            .then(|| shortfall(end, &key.native, raw, &state.modules));
        let language = if state.is_go {
            Language::Go
        } else if is_python {
            Language::Python
        } else {
            language_of(
                frames.iter().filter_map(|f| f.module.as_deref()),
                state.modules.executable_path.as_deref(),
            )
        };
        let id = StackId(format!("{identity:016x}"));
        let stack = match self.stacks.get(&id) {
            Some(shared)
                if (shared.0.quality, shared.0.shortfall) == (quality, shortfall)
                    && shared.0.frames == frames =>
            {
                Arc::clone(&shared.0)
            }
            _ => {
                let culprit = culprit(&frames, language, &self.driver_frames);
                let stack = Arc::new(Stack { id, quality, shortfall, language, frames, culprit });
                if self.stacks.len() < MAX_STACKS {
                    self.stacks.insert(SharedStack(Arc::clone(&stack)));
                }
                stack
            }
        };
        if state.known.len() >= MAX_KNOWN_PER_PROCESS {
            state.known.clear();
        }
        // Code that is compiled at run time is moved, and names for it come later.
        if is_lasting {
            state.known.insert(key, Arc::clone(&stack));
        }
        Some((stack, python_suffices))
    }
}

/// Whether as much of a stack was wanted as is ever copied.
fn is_longest(raw: &RawStack) -> bool {
    raw.wanted as usize >= MAX_STACK
}

/// Why a stack ended before its thread's first function, by the code where it did.
fn shortfall(end: End, addresses: &[u64], raw: &RawStack, modules: &Modules) -> Shortfall {
    match end {
        End::CopyTooShort if is_longest(raw) => return Shortfall::CopyLimit,
        End::CopyTooShort => return Shortfall::CopyTooShort,
        End::Unmapped => return Shortfall::UnmappedAddress,
        End::Lost if addresses.len() >= MAX_DEPTH => return Shortfall::TooManyCalls,
        End::Root | End::MaybeRoot | End::Lost => {}
    }
    let last = addresses.last().and_then(|address| modules.find(*address));
    last.map_or(Shortfall::Unfollowable, |mapping| match (&mapping.binary, &mapping.path) {
        (Some(binary), _) => binary.shortfall(),
        (None, Some(_)) => Shortfall::UnreadableFile,
        (None, None) => Shortfall::RuntimeCode,
    })
}

/// A binary's symbols, innermost first; none when the parser fails.
fn symbols_at(binary: &Binary, address: u64) -> Rc<[Symbol]> {
    let symbols = || match binary.is_signal_return(address) {
        true => compiled_symbol(Some(SIGNAL_HANDLER_CALLED)),
        false => binary.symbols_at(address),
    };
    guarded(symbols).unwrap_or_else(|| Rc::new([]))
}

/// A name that stands for itself.
fn compiled_symbol(name: Option<&str>) -> Rc<[Symbol]> {
    let symbol = |name: &str| Symbol { function: Some(name.to_owned()), ..Symbol::default() };
    name.map(symbol).into_iter().collect()
}

/// How many of a stack's addresses follow one another without a gap.
fn sure_of(raw: &RawStack, addresses: &[u64], modules: &Modules) -> usize {
    let is_compiled = |address| {
        modules
            .find(address)
            .is_some_and(|m| m.binary.as_ref().is_none_or(|b| b.loaded().is_none()))
    };
    let language = language_of(std::iter::empty(), modules.executable_path.as_deref());
    if !addresses.iter().any(|&address| is_compiled(address))
        || keeps_frame_pointers(raw.process.pid, language)
    {
        return addresses.len();
    }
    sure_frames(raw, addresses, is_compiled)
}

/// Whether a mapping of this path is memory that the kernel shows as a file.
fn is_memory(path: &str) -> bool {
    ["/dev/zero", "/memfd:", "/SYSV", "/dev/shm/"].iter().any(|start| path.starts_with(start))
}
