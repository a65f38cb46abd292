//! The one door to this room: raw stacks in, symbolized and shared stacks out.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use leak_common::stack::{MAX_STACK, StackProfile};

use super::assemble::{Assembled, Assembly, hash_of};
use super::binary::{Binary, BinaryStore};
use super::culprit::{culprit, language_of};
use super::driver_frames::DriverFrames;
use super::fold::fold;
use super::modules::{Modules, ModulesError, Pinner, Sighting};
use super::perf_map::PerfMaps;
use super::python::PythonProcess;
use super::raw::RawStack;
use super::shortfall::Shortfall;
use super::skipped::{keeps_frame_pointers, sure_frames};
use super::symbolize::Symbol;
use super::unwind::{self, End, MAX_DEPTH, Walk};
use super::watch::Watch;
use super::{Language, Quality, Stack, guarded};
use crate::event::{ProcessKey, StackId, Timestamp};

/// Most processes whose mappings are kept.
const MAX_PROCESSES: usize = 8192;
/// Most different stacks of one process that are remembered by their addresses.
const MAX_KNOWN_PER_PROCESS: usize = 2048;
/// Most stacks that are shared among processes.
const MAX_STACKS: usize = 32 * 1024;
/// Most programs of one process, executed one after the other, that are remembered.
const MAX_IMAGES: usize = 3;
/// How often a process's mappings are read again at most.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(1);
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

/// What became of a raw stack.
#[derive(Clone, Debug, Default)]
pub struct Resolved {
    /// The stack; `None` when nothing is known of its process, as when it exited before it was
    /// first seen.
    pub stack: Option<Arc<Stack>>,
    /// Why the stack is not complete; `None` when it is.
    pub shortfall: Option<Shortfall>,
    /// The goroutine that ran, in a Go program.
    pub goroutine: Option<u64>,
    /// The stack is truncated because too few bytes of it were copied: a longer copy would show
    /// more.
    pub frames_wanted_more: bool,
}

impl Resolved {
    /// No stack, and why.
    #[must_use]
    pub fn without_stack(shortfall: Shortfall) -> Self {
        Self { shortfall: Some(shortfall), ..Self::default() }
    }
}

/// Unwinds and symbolizes stacks, and remembers what it learnt for that.
///
/// It is not `Send`, because blazesym's symbolizer is not: create it on the thread that uses it,
/// and give it raw stacks through a channel. Reading a large binary for the first time takes up to
/// some hundred milliseconds, so that thread should not be one that others wait for.
#[derive(Debug)]
pub struct Resolver {
    processes: HashMap<ProcessKey, Images>,
    pinner: Pinner,
    watch: Arc<Watch>,
    binaries: BinaryStore,
    perf_maps: PerfMaps,
    driver_frames: Vec<DriverFrames>,
    stacks: HashSet<SharedStack>,
}

/// The programs that a process has executed, the latest one last; there is at least one.
///
/// A stack is resolved with the program that ran when it was taken, which may be an earlier one:
/// connections survive `execve(2)`.
#[derive(Debug)]
struct Images(Vec<ProcessState>);

impl Images {
    /// The program of a stack with this image; the latest one when the image is unknown.
    fn of(&self, image: u64) -> Option<&ProcessState> {
        self.0.iter().rev().find(|state| state.is_of(image))
    }

    fn of_mut(&mut self, image: u64) -> Option<&mut ProcessState> {
        self.0.iter_mut().rev().find(|state| state.is_of(image))
    }

    /// Adds what was seen now.
    fn add(&mut self, state: ProcessState) {
        if self.0.last().is_some_and(|last| last.modules.image == state.modules.image) {
            self.0.pop();
        } else if self.0.len() >= MAX_IMAGES {
            self.0.remove(0);
        }
        self.0.push(state);
    }
}

/// What a resolved stack is remembered by.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Known {
    native: Box<[u64]>,
    /// A hash of the Python calls.
    python: u64,
    python_is_whole: bool,
    end: End,
    /// Whether as much was copied as ever is.
    is_longest: bool,
}

#[derive(Debug)]
struct ProcessState {
    modules: Modules,
    python: PythonProcess,
    /// It was seen to be written in Go.
    is_go: bool,
    known: HashMap<Known, Arc<Stack>>,
}

impl ProcessState {
    fn new(modules: Modules) -> Self {
        let python = PythonProcess::default();
        Self { modules, python, is_go: false, known: HashMap::new() }
    }

    fn is_of(&self, image: u64) -> bool {
        image == 0 || self.modules.image == 0 || self.modules.image == image
    }
}

/// A stack, compared by its identity.
#[derive(Debug)]
struct SharedStack(Arc<Stack>);

impl PartialEq for SharedStack {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for SharedStack {}

impl std::hash::Hash for SharedStack {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

impl std::borrow::Borrow<StackId> for SharedStack {
    fn borrow(&self) -> &StackId {
        &self.0.id
    }
}

impl Resolver {
    /// A resolver that knows no process yet. `watch` sees what it reads.
    #[must_use]
    pub fn new(watch: Arc<Watch>) -> Self {
        Self {
            processes: HashMap::new(),
            pinner: Pinner::default(),
            binaries: BinaryStore::new(Arc::clone(&watch)),
            watch,
            perf_maps: PerfMaps::default(),
            driver_frames: Vec::new(),
            stacks: HashSet::new(),
        }
    }

    /// Says that code which matches these patterns is never the application's.
    pub fn set_driver_frames(&mut self, driver_frames: Vec<DriverFrames>) {
        self.driver_frames = driver_frames;
    }

    /// Looks at a process, unless that was done before: it may be gone, or its files replaced, when
    /// its stacks are asked for.
    ///
    /// # Errors
    /// When procfs refuses, the PID belongs to another process by now, or there are too many.
    pub fn first_sight(&mut self, process: ProcessKey, now: Timestamp) -> Result<(), ModulesError> {
        match self.processes.get_mut(&process).and_then(|images| images.0.last_mut()) {
            Some(state) => {
                state.python.look(process, &state.modules, now);
                Ok(())
            }
            None => self.look(process, now),
        }
    }

    /// Takes in what was seen of a process.
    ///
    /// # Errors
    /// When too many processes are known.
    pub fn meet(&mut self, sighting: Sighting, now: Timestamp) -> Result<(), ModulesError> {
        let process = sighting.process;
        let is_known = self.processes.contains_key(&process);
        if !is_known && self.processes.len() >= MAX_PROCESSES {
            return Err(ModulesError::TooMany(process.pid));
        }
        let mut state = ProcessState::new(Modules::new(sighting, &mut self.binaries));
        state.python.look(process, &state.modules, now);
        let images = self.processes.entry(process).or_insert_with(|| Images(Vec::new()));
        if images.0.last().is_some_and(|last| last.modules.image != state.modules.image) {
            // What another program had compiled.
            self.perf_maps.forget(process);
        }
        images.add(state);
        Ok(())
    }

    fn look(&mut self, process: ProcessKey, now: Timestamp) -> Result<(), ModulesError> {
        if self.watch.has_given_up(process) {
            return Err(ModulesError::Unresponsive(process.pid));
        }
        let sighting = self.pinner.look(process, now)?;
        self.meet(sighting, now)
    }

    /// What the kernel programs should know of a process to copy its stacks well; `None` when there
    /// is nothing to tell them yet. It may be known later than at first sight, as when an
    /// interpreter is still starting, and change when the process executes another program: ask
    /// again after each stack.
    #[must_use]
    pub fn profile(&self, process: ProcessKey) -> Option<StackProfile> {
        let state = self.processes.get(&process)?.0.last()?;
        let python = state.python.profile();
        let executable = state.modules.executable_path.as_deref();
        let stack_bytes = stack_bytes(language_of(std::iter::empty(), executable));
        (state.is_go || python.is_some() || stack_bytes != 0).then(|| StackProfile {
            stack_bytes,
            goroutines: u32::from(state.is_go),
            python: python.unwrap_or_default(),
        })
    }

    /// Unwinds and symbolizes a stack.
    pub fn resolve(&mut self, raw: &RawStack, now: Timestamp) -> Resolved {
        if let Err(error) = self.find_image(raw, now) {
            return Resolved::without_stack(error);
        }
        let Some(mut walk) = self.walk(raw) else { return Resolved::default() };
        if walk.end == End::Unmapped && self.refresh(raw, now, |_| true) {
            walk = self.walk(raw).unwrap_or(walk);
        }
        let go = self.processes.get(&raw.process).and_then(|images| {
            let loaded = images.of(raw.image)?.modules.executable()?.loaded()?;
            loaded.go.as_ref().map(|go| go.goroutine(&raw.goroutine_window))
        });
        if let Some(state) = self.processes.get_mut(&raw.process).and_then(|i| i.of_mut(raw.image))
        {
            state.is_go = go.is_some();
        }
        let is_cut = walk.end == End::CopyTooShort;
        let (stack, python_suffices) = self.symbolized(raw, walk, now).unzip();
        self.binaries.trim();
        let frames_wanted_more = is_cut && !python_suffices.unwrap_or(false);
        let shortfall = stack.as_ref().and_then(|stack| stack.shortfall);
        Resolved { stack, shortfall, goroutine: go.flatten(), frames_wanted_more }
    }

    /// Makes sure that the program of a stack is known, if that can be.
    fn find_image(&mut self, raw: &RawStack, now: Timestamp) -> Result<(), Shortfall> {
        let told = |error| match error {
            ModulesError::TooMany(_) => Shortfall::TooManyProcesses,
            ModulesError::Unresponsive(_) => Shortfall::UnresponsiveFile,
            ModulesError::Read { .. }
            | ModulesError::Empty(_)
            | ModulesError::Reused(_)
            | ModulesError::Executing(_) => Shortfall::ProcessGone,
        };
        self.first_sight(raw.process, now).map_err(told)?;
        if raw.image == 0 {
            let executed = |modules: &Modules| modules.is_replaced(raw.process.pid);
            self.refresh(raw, now, executed);
        }
        let is_known = |resolver: &Self| {
            resolver
                .processes
                .get(&raw.process)
                .is_some_and(|images| images.of(raw.image).is_some())
        };
        if !is_known(self) {
            // It has executed another program since; when it is gone, only the new one could tell.
            self.look(raw.process, now).map_err(told)?;
        }
        if is_known(self) { Ok(()) } else { Err(Shortfall::ProgramReplaced) }
    }

    fn walk(&self, raw: &RawStack) -> Option<Walk> {
        let state = self.processes.get(&raw.process)?.of(raw.image)?;
        Some(unwind::walk(raw, &state.modules))
    }

    /// Forgets a process. Its files are closed when no other process runs them.
    pub fn forget(&mut self, process: ProcessKey) {
        self.processes.remove(&process);
        self.perf_maps.forget(process);
        self.binaries.close_unused();
    }

    /// How many processes and binaries are held.
    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize) {
        (self.processes.len(), self.binaries.len())
    }

    /// Reads a process's mappings again when they are `outdated`, though not too often; says whether
    /// it did. The process may have loaded more code, or executed another program.
    fn refresh(
        &mut self,
        raw: &RawStack,
        now: Timestamp,
        outdated: impl FnOnce(&Modules) -> bool,
    ) -> bool {
        let latest = self.processes.get_mut(&raw.process).and_then(|images| images.0.last_mut());
        let Some(state) = latest.filter(|state| state.is_of(raw.image)) else { return false };
        if now.since(state.modules.read_at) < READ_AGAIN_AFTER || !outdated(&state.modules) {
            return false;
        }
        // A process that has exited keeps the mappings that it had; it is not asked too often.
        state.modules.read_at = now;
        self.look(raw.process, now).is_ok()
    }

    /// The stack with names, and whether its Python calls make up for what the copy lacks.
    fn symbolized(
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
        let calls = state.python.name(&raw.python, raw.python_tag);
        let python_is_whole = raw.python_whole && !calls.is_empty();
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

/// How much of a stack is worth copying from the start; 0: what the others get.
fn stack_bytes(language: Language) -> u32 {
    match language {
        // libuv keeps 12 KiB of events on the stack of each loop; PHP's command reads its script there.
        Language::Node | Language::Php => 30 << 10,
        Language::Java | Language::Ruby => 16 << 10,
        _ => 0,
    }
}

/// Whether a mapping of this path is memory that the kernel shows as a file.
fn is_memory(path: &str) -> bool {
    ["/dev/zero", "/memfd:", "/SYSV", "/dev/shm/"].iter().any(|start| path.starts_with(start))
}
