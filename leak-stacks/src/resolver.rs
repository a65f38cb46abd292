//! The door: raw stacks in, symbolized and shared stacks out.

mod assembly;
mod functions;
mod identity;
mod naming;
mod programs;
mod seen;
mod shared;
mod texts;
mod threads;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::programs::{Program, Programs};
pub use self::seen::{BlockedThread, ThreadId, ThreadsSeen, WantedThreads};
use self::shared::SharedStack;
use crate::binary::modules::Modules;
use crate::binary::store::BinaryStore;
use crate::culprit::driver_frames::DriverFrames;
use crate::guarded::guarded;
use crate::languages::go::{self, GoProgram};
use crate::languages::runtimes::Languages;
use crate::process::ProcessKey;
use crate::process::snapshot::{MappingReader, ModulesError, Observer, ProcessSnapshot};
use crate::process::stat::Stat;
use crate::process::watchdog::ReadWatchdog;
use crate::raw::{RawStack, StackProfile};
use crate::stack::Stack;
use crate::time::Timestamp;
use crate::truncation::TruncationReason;
use crate::unwind::step::End;
use crate::unwind::walk::{Walk, walk};

/// Most processes whose mappings are kept.
const MAX_PROCESSES: usize = 8192;
/// How often a process's mappings are read again at most.
const READ_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// What became of a raw stack.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Resolved {
    /// The stack; `None` when nothing is known of its process, as when it exited before it was
    /// first seen.
    pub stack: Option<Arc<Stack>>,
    /// Why the stack is not complete; `None` when it is.
    pub truncation: Option<TruncationReason>,
    /// The goroutine that ran, in a Go program.
    pub goroutine: Option<u64>,
    /// The stack is truncated because too few bytes of it were copied: a longer copy would show
    /// more.
    pub frames_wanted_more: bool,
}

impl Resolved {
    /// No stack, and why.
    #[must_use]
    pub fn without_stack(reason: TruncationReason) -> Self {
        Self { truncation: Some(reason), ..Self::default() }
    }
}

/// Unwinds and symbolizes stacks, and remembers what it learnt for that.
///
/// It is not `Send`, because blazesym's symbolizer is not: create it on the thread that uses it,
/// and give it raw stacks through a channel. Reading a large binary for the first time takes up to
/// some hundred milliseconds, so that thread should not be one that others wait for.
#[derive(Debug)]
pub struct Resolver {
    processes: HashMap<ProcessKey, Programs>,
    observer: Box<dyn Observer>,
    watchdog: Arc<ReadWatchdog>,
    binaries: BinaryStore,
    languages: Languages,
    driver_frames: Vec<DriverFrames>,
    stacks: HashSet<SharedStack>,
}

impl Resolver {
    /// A resolver that knows no process yet, and looks at processes by itself. `watchdog` sees what
    /// it reads.
    #[must_use]
    pub fn new(watchdog: Arc<ReadWatchdog>) -> Self {
        Self::with_observer(Box::<MappingReader>::default(), watchdog)
    }

    /// A resolver that has processes looked at: what it knows of their mappings and files is in
    /// snapshots, and it reads the files through their descriptors. It still opens the memory of
    /// processes that run a language's runtime, and perf maps, by itself.
    #[must_use]
    pub fn with_observer(observer: Box<dyn Observer>, watchdog: Arc<ReadWatchdog>) -> Self {
        Self {
            processes: HashMap::new(),
            observer,
            binaries: BinaryStore::new(Arc::clone(&watchdog)),
            watchdog,
            languages: Languages::default(),
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
        match self.processes.get_mut(&process).and_then(Programs::latest_mut) {
            Some(program) => {
                program.look_for_runtimes(&mut self.languages, now);
                Ok(())
            }
            None => self.look(process, now),
        }
    }

    /// Takes in a snapshot of a process.
    ///
    /// # Errors
    /// When too many processes are known.
    pub fn meet(&mut self, snapshot: ProcessSnapshot, now: Timestamp) -> Result<(), ModulesError> {
        let process = snapshot.process();
        let is_known = self.processes.contains_key(&process);
        if !is_known && self.processes.len() >= MAX_PROCESSES {
            return Err(ModulesError::TooMany(process.pid));
        }
        let mut program = Program::new(process, Modules::new(snapshot, &mut self.binaries));
        program.look_for_runtimes(&mut self.languages, now);
        match self.processes.get_mut(&process) {
            Some(programs) => programs.add(program),
            None => {
                self.processes.insert(process, Programs::new(program));
            }
        }
        Ok(())
    }

    fn look(&mut self, process: ProcessKey, now: Timestamp) -> Result<(), ModulesError> {
        if self.watchdog.has_given_up(process) {
            return Err(ModulesError::Unresponsive(process.pid));
        }
        let snapshot = self.observer.look(process, now)?;
        self.meet(snapshot, now)
    }

    /// What whoever copies a process's stacks should know of it; `None` for a process that is not
    /// known. It may become known later than at first sight, as when an interpreter is still
    /// starting, and change when the process executes another program: ask again after each stack.
    #[must_use]
    pub fn profile(&self, process: ProcessKey) -> Option<StackProfile> {
        let profile = self.processes.get(&process)?.latest()?.runtimes.profile();
        (profile != StackProfile::default()).then_some(profile)
    }

    /// Unwinds and symbolizes a stack.
    pub fn resolve(&mut self, raw: &RawStack, now: Timestamp) -> Resolved {
        if let Err(error) = self.find_program(raw, now) {
            return Resolved::without_stack(error);
        }
        let Some(mut walk) = self.walk(raw, now) else { return Resolved::default() };
        if walk.end == End::Unmapped && self.refresh(raw, now, |_| true) {
            walk = self.walk(raw, now).unwrap_or(walk);
        }
        let is_cut = walk.end == End::CopyTooShort;
        let goroutine = self.light_thread(raw, now);
        let (stack, noted_suffice) = self.named(raw, walk, now).unzip();
        self.binaries.trim();
        let frames_wanted_more = is_cut && !noted_suffice.unwrap_or(false);
        let truncation = stack.as_ref().and_then(|stack| stack.truncation);
        Resolved { stack, truncation, goroutine, frames_wanted_more }
    }

    /// The program that a process runs, to be looked into, if it is written in Go and can be read.
    #[must_use]
    pub fn go_program(&mut self, process: ProcessKey, now: Timestamp) -> Option<GoProgram> {
        self.first_sight(process, now).ok()?;
        let image = Stat::read(process.pid).ok()?.image;
        let modules = &self.processes.get(&process)?.latest()?.modules;
        // It may also have been seen in the middle of executing what it runs.
        if modules.image != image || modules.is_replaced(process.pid) {
            self.look(process, now).ok()?;
        }
        let (_, process) = self.processes.get_mut(&process)?.latest_mut()?.parts(now);
        guarded(|| go::program(&process)).flatten()
    }

    fn light_thread(&mut self, raw: &RawStack, now: Timestamp) -> Option<u64> {
        let program = self.processes.get_mut(&raw.process)?.of_mut(raw.image)?;
        let (runtimes, process) = program.parts(now);
        runtimes.light_thread(raw, &process)
    }

    /// Makes sure that the program of a stack is known, if that can be.
    fn find_program(&mut self, raw: &RawStack, now: Timestamp) -> Result<(), TruncationReason> {
        let told = |error| match error {
            ModulesError::TooMany(_) => TruncationReason::TooManyProcesses,
            ModulesError::Unresponsive(_) => TruncationReason::UnresponsiveFile,
            ModulesError::Read { .. }
            | ModulesError::Empty(_)
            | ModulesError::Reused(_)
            | ModulesError::Executing(_) => TruncationReason::ProcessGone,
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
                .is_some_and(|programs| programs.of(raw.image).is_some())
        };
        if !is_known(self) {
            // It has executed another program since; when it is gone, only the new one could tell.
            self.look(raw.process, now).map_err(told)?;
        }
        if is_known(self) { Ok(()) } else { Err(TruncationReason::ProgramReplaced) }
    }

    fn walk(&mut self, raw: &RawStack, now: Timestamp) -> Option<Walk> {
        let program = self.processes.get_mut(&raw.process)?.of_mut(raw.image)?;
        let (runtimes, process) = program.parts(now);
        Some(walk(raw, process.modules, &mut runtimes.unwinder(&process)))
    }

    /// Forgets a process. Its files are closed when no other process runs them.
    pub fn forget(&mut self, process: ProcessKey) {
        self.processes.remove(&process);
        self.binaries.close_unused();
    }

    /// Knows these languages alone.
    #[cfg(test)]
    pub(crate) fn use_languages(&mut self, languages: Languages) {
        self.languages = languages;
    }

    /// How many processes and binaries are held.
    #[cfg(test)]
    pub(crate) fn held(&self) -> (usize, usize) {
        (self.processes.len(), self.binaries.len())
    }

    /// Reads a process's mappings again when they are `outdated`, though not too often; says
    /// whether it did. The process may have loaded more code, or executed another program.
    fn refresh(
        &mut self,
        raw: &RawStack,
        now: Timestamp,
        outdated: impl FnOnce(&Modules) -> bool,
    ) -> bool {
        let latest = self.processes.get_mut(&raw.process).and_then(Programs::latest_mut);
        let Some(program) = latest.filter(|program| program.is_of(raw.image)) else { return false };
        if now.since(program.modules.read_at) < READ_AGAIN_AFTER || !outdated(&program.modules) {
            return false;
        }
        // A process that has exited keeps the mappings that it had; it is not asked too often.
        program.modules.read_at = now;
        self.look(raw.process, now).is_ok()
    }
}
