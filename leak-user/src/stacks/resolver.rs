//! The one door to this room: raw stacks in, symbolized and shared stacks out.

mod images;
mod naming;
mod shared;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use leak_common::stack::{MAX_STACK, SHORT_STACK, StackProfile};

use self::images::{Images, ProcessState};
use self::shared::SharedStack;
use super::binary::BinaryStore;
use super::culprit::language_of;
use super::driver_frames::DriverFrames;
use super::modules::Modules;
use super::perf_map::PerfMaps;
use super::raw::RawStack;
use super::shortfall::Shortfall;
use super::sighting::{ModulesError, Pinner, Sighting};
use super::unwind::{self, End, Walk};
use super::watch::Watch;
use super::{Language, Stack};
use crate::event::{ProcessKey, Timestamp};

/// Most processes whose mappings are kept.
const MAX_PROCESSES: usize = 8192;
/// How often a process's mappings are read again at most.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(1);

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
            interpreter: python.unwrap_or_default(),
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
}

/// How much of a stack is worth copying from the start; 0: what the others get.
fn stack_bytes(language: Language) -> u32 {
    match language {
        // libuv keeps 12 KiB of events on the stack of each loop; PHP's command reads its script there.
        Language::Node | Language::Php => MAX_STACK as u32,
        Language::Java | Language::Ruby => SHORT_STACK as u32,
        _ => 0,
    }
}
