//! The one door to this room: raw stacks in, symbolized and shared stacks out.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use leak_common::stack::StackProfile;

use super::assemble::{Assembled, Assembly, hash_of};
use super::binary::{Binary, BinaryStore};
use super::culprit::{culprit, language_of};
use super::driver_frames::DriverFrames;
use super::modules::{Modules, ModulesError};
use super::perf_map::PerfMaps;
use super::python::PythonProcess;
use super::raw::RawStack;
use super::skipped::{keeps_frame_pointers, sure_frames};
use super::symbolize::Symbol;
use super::unwind::{End, Walk, Walker};
use super::{Language, Quality, Stack, guarded};
use crate::event::{ProcessKey, StackId, Timestamp};

/// Most processes whose mappings are kept.
const MAX_PROCESSES: usize = 8192;
/// Most different stacks of one process that are remembered by their addresses.
const MAX_KNOWN_PER_PROCESS: usize = 2048;
/// Most stacks that are shared among processes.
const MAX_STACKS: usize = 32 * 1024;
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

/// What became of a raw stack.
#[derive(Clone, Debug, Default)]
pub struct Resolved {
    /// The stack; `None` when nothing is known of its process, as when it exited before it was
    /// first seen.
    pub stack: Option<Arc<Stack>>,
    /// The goroutine that ran, in a Go program.
    pub goroutine: Option<u64>,
    /// The stack is truncated because too few bytes of it were copied: a longer copy would show
    /// more.
    pub frames_wanted_more: bool,
}

/// What the resolver holds and what it had to refuse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResolverStats {
    /// Processes whose mappings are known.
    pub processes: usize,
    /// Files that are held open.
    pub binaries: usize,
    /// Processes that were refused because too many were known already.
    pub processes_refused: u64,
    /// Files that were refused because too many were held open already.
    pub binaries_refused: u64,
    /// Held files that are no binaries, or whose headers made a parser fail; their frames stay
    /// nameless.
    pub binaries_unusable: usize,
}

/// Unwinds and symbolizes stacks, and remembers what it learnt for that.
///
/// It is not `Send`, because blazesym's symbolizer is not: create it on the thread that uses it,
/// and give it raw stacks through a channel. Reading a large binary for the first time takes up to
/// some hundred milliseconds, so that thread should not be one that others wait for.
#[derive(Debug)]
pub struct Resolver {
    processes: HashMap<ProcessKey, ProcessState>,
    binaries: BinaryStore,
    perf_maps: PerfMaps,
    driver_frames: Vec<DriverFrames>,
    walker: Walker,
    stacks: HashSet<SharedStack>,
    processes_refused: u64,
}

/// What a resolved stack is remembered by.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Known {
    native: Box<[u64]>,
    /// A hash of the Python calls.
    python: u64,
    is_whole: bool,
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

impl Default for Resolver {
    fn default() -> Self {
        Self::new()
    }
}

impl Resolver {
    /// A resolver that knows no process yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            processes: HashMap::new(),
            binaries: BinaryStore::default(),
            perf_maps: PerfMaps::default(),
            driver_frames: Vec::new(),
            walker: Walker::new(),
            stacks: HashSet::new(),
            processes_refused: 0,
        }
    }

    /// Says that code which matches these patterns is never the application's.
    pub fn set_driver_frames(&mut self, driver_frames: Vec<DriverFrames>) {
        self.driver_frames = driver_frames;
    }

    /// Reads a process's mappings and opens their files, unless that was done before: the process
    /// may be gone, or its files replaced, when its stacks are asked for.
    ///
    /// # Errors
    /// When procfs refuses, or the PID belongs to another process by now.
    pub fn first_sight(&mut self, process: ProcessKey, now: Timestamp) -> Result<(), ModulesError> {
        if let Some(state) = self.processes.get_mut(&process) {
            state.python.look(process, &state.modules, now);
            return Ok(());
        }
        if self.processes.len() >= MAX_PROCESSES {
            self.processes_refused += 1;
            return Ok(());
        }
        let modules = Modules::read(process, &mut self.binaries, now)?;
        let mut state = ProcessState::new(modules);
        state.python.look(process, &state.modules, now);
        self.processes.insert(process, state);
        Ok(())
    }

    /// What the kernel programs should know of a process to copy its stacks well; `None` when there
    /// is nothing to tell them yet. It may be known later than at first sight, as when an
    /// interpreter is still starting, and change when the process executes another program: ask
    /// again after each stack.
    #[must_use]
    pub fn profile(&self, process: ProcessKey) -> Option<StackProfile> {
        let state = self.processes.get(&process)?;
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
        // Without its mappings a process's stack stays unknown; the caller learns that from the
        // answer, and whoever asked for first sight has learnt why.
        let _ = self.first_sight(raw.process, now);
        let executed = |modules: &Modules| modules.is_replaced(raw.process.pid);
        self.refresh(raw.process, now, executed);
        let Some(mut walk) = self.walk(raw) else { return Resolved::default() };
        if walk.end == End::Unmapped && self.refresh(raw.process, now, |_| true) {
            walk = self.walk(raw).unwrap_or(walk);
        }
        let go = self.processes.get(&raw.process).and_then(|state| {
            let loaded = state.modules.executable()?.loaded()?;
            loaded.go.as_ref().map(|go| go.goroutine(&raw.goroutine_window))
        });
        if let Some(state) = self.processes.get_mut(&raw.process) {
            state.is_go = go.is_some();
        }
        let is_cut = walk.end == End::CopyTooShort;
        let (stack, python_suffices) = self.symbolized(raw, walk, now).unzip();
        self.binaries.trim();
        let frames_wanted_more = is_cut && !python_suffices.unwrap_or(false);
        Resolved { stack, goroutine: go.flatten(), frames_wanted_more }
    }

    fn walk(&mut self, raw: &RawStack) -> Option<Walk> {
        let state = self.processes.get(&raw.process)?;
        Some(self.walker.walk(raw, &state.modules))
    }

    /// Forgets a process. Its files are closed when no other process runs them.
    pub fn forget(&mut self, process: ProcessKey) {
        self.processes.remove(&process);
        self.perf_maps.forget(process);
        self.binaries.close_unused();
    }

    /// What is held and what was refused.
    #[must_use]
    pub fn stats(&self) -> ResolverStats {
        ResolverStats {
            processes: self.processes.len(),
            binaries: self.binaries.len(),
            binaries_unusable: self.binaries.unusable(),
            processes_refused: self.processes_refused,
            binaries_refused: self.binaries.refused,
        }
    }

    /// Reads a process's mappings again when they are `outdated`, though not too often; says whether
    /// it did. The process may have loaded more code, or executed another program.
    fn refresh(
        &mut self,
        process: ProcessKey,
        now: Timestamp,
        outdated: impl FnOnce(&Modules) -> bool,
    ) -> bool {
        let Some(state) = self.processes.get_mut(&process) else { return false };
        if now.since(state.modules.read_at) < READ_AGAIN_AFTER || !outdated(&state.modules) {
            return false;
        }
        // A process that has exited keeps the mappings that it had; it is not asked too often.
        state.modules.read_at = now;
        let Ok(modules) = Modules::read(process, &mut self.binaries, now) else { return false };
        if state.modules.executable_path != modules.executable_path {
            self.perf_maps.forget(process);
        }
        *state = ProcessState::new(modules);
        state.python.look(process, &state.modules, now);
        true
    }

    /// The stack with names, and whether its Python calls make up for what the copy lacks.
    fn symbolized(
        &mut self,
        raw: &RawStack,
        walk: Walk,
        now: Timestamp,
    ) -> Option<(Arc<Stack>, bool)> {
        let state = self.processes.get_mut(&raw.process)?;
        let Walk { mut addresses, mut end } = walk;
        let sure = sure_of(raw, &addresses, &state.modules);
        if sure < addresses.len() {
            addresses.truncate(sure);
            end = End::Lost;
        }
        let calls = state.python.name(&raw.python, raw.python_tag);
        let python_is_whole = raw.python_whole && !calls.is_empty();
        let python = if calls.is_empty() { 0 } else { hash_of(&calls) };
        let is_whole = if calls.is_empty() { end == End::Root } else { raw.python_whole };
        let key = Known { native: addresses.into_boxed_slice(), python, is_whole };
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
        let Assembled { frames, identity } = assembly.finish();
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
            Some(shared) if shared.0.quality == quality && shared.0.frames == frames => {
                Arc::clone(&shared.0)
            }
            _ => {
                let culprit = culprit(&frames, language, &self.driver_frames);
                let stack = Arc::new(Stack { id, quality, language, frames, culprit });
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

/// A binary's symbols, innermost first; none when the parser fails.
fn symbols_at(binary: &Binary, address: u64) -> Rc<[Symbol]> {
    guarded(|| binary.symbols_at(address)).unwrap_or_else(|| Rc::new([]))
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
