//! Where the threads of a process are blocked now, or its goroutines parked, seen from outside:
//! none is stopped.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::languages::go::{GoProgram, GoroutineState};
use crate::languages::language::Process;
use crate::languages::target::Target;
use crate::process::ProcessKey;
use crate::process::blocked::{Blocked, has_thread, threads_of};
use crate::process::stat::Stat;
use crate::raw::{PRESERVED_REGISTERS, RawStack};
use crate::resolver::Resolver;
use crate::resolver::programs::Programs;
use crate::resolver::seen::{
    BlockedThread, Seen, SeenThreads, Standstill, ThreadId, ThreadsSeen, WantedThreads,
};
use crate::stack::Stack;
use crate::time::Timestamp;

/// Most threads of one process that are looked at.
const MAX_THREADS: usize = 4096;
/// Most goroutines.
const MAX_GOROUTINES: usize = 64 << 10;
/// Most bytes of a stack that are copied.
const MAX_COPY: u32 = 32 << 10;

/// A look at a process's threads.
struct Look<'a> {
    process: ProcessKey,
    image: u64,
    wanted: &'a WantedThreads,
    now: Timestamp,
    may_go_on: &'a mut dyn FnMut() -> bool,
    /// What was seen before.
    former: SeenThreads,
    latest: SeenThreads,
    seen: ThreadsSeen,
}

impl Resolver {
    /// Looks at threads of a process, without stopping them, and resolves the stacks of those that
    /// are blocked in a system call; in a program that is written in Go, of goroutines that are
    /// parked. Stacks of those that have not run since the look before are known. `may_go_on` is
    /// asked before each.
    ///
    /// The stack of a blocked thread does not change, so a copy of it counts only if the thread has
    /// not run meanwhile.
    pub fn threads(
        &mut self,
        process: ProcessKey,
        wanted: &WantedThreads,
        now: Timestamp,
        mut may_go_on: impl FnMut() -> bool,
    ) -> ThreadsSeen {
        let is_it = |stat: &Stat| stat.start_ticks == process.start_ticks && !stat.has_exited;
        let Some(stat) = Stat::read(process.pid).ok().filter(is_it) else {
            return ThreadsSeen::default();
        };
        let program = self.go_program(process, now);
        let former = self.take_seen(process, stat.image);
        let (latest, seen) = (SeenThreads::default(), ThreadsSeen::default());
        let (image, may_go_on) = (stat.image, &mut may_go_on);
        let mut look = Look { process, image, wanted, now, may_go_on, former, latest, seen };
        match &program {
            Some(program) => self.look_at_goroutines(program, &mut look),
            None => self.look_at_threads(&mut look),
        }
        let Look { former, mut latest, seen, .. } = look;
        if !wanted.all || seen.is_cut {
            latest.add(former);
        }
        if let Some(program) = self.processes.get_mut(&process).and_then(Programs::latest_mut) {
            program.threads = latest;
        }
        // What was read may be another process's, if this one has ended.
        let is_same = |now: &Stat| is_it(now) && now.image == stat.image;
        let has_lived = Stat::read(process.pid).is_ok_and(|stat| is_same(&stat));
        if has_lived { seen } else { ThreadsSeen::default() }
    }

    fn take_seen(&mut self, process: ProcessKey, image: u64) -> SeenThreads {
        let latest = self.processes.get_mut(&process).and_then(Programs::latest_mut);
        let program = latest.filter(|program| program.is_of(image));
        program.map(|program| std::mem::take(&mut program.threads)).unwrap_or_default()
    }

    fn look_at_threads(&mut self, look: &mut Look<'_>) {
        let pid = look.process.pid;
        let these: Vec<u32> = look.wanted.these.iter().filter_map(system_thread).collect();
        let gone = these.iter().filter(|&&tid| !has_thread(pid, tid));
        look.seen.ended = gone.map(|&tid| ThreadId::System(tid)).collect();
        let mut tids = these;
        if look.wanted.all {
            let (all, are_cut) = threads_of(pid, MAX_THREADS);
            look.seen.is_cut = are_cut;
            let known: HashSet<u32> = tids.iter().copied().collect();
            tids.extend(all.into_iter().filter(|tid| !known.contains(tid)));
        }
        for tid in tids {
            if !(look.may_go_on)() {
                look.seen.is_cut = true;
                break;
            }
            let Some(blocked) = Blocked::read(pid, tid) else { continue };
            let Look { process, image, now, .. } = *look;
            let stack = || self.stack_of(process, image, tid, &blocked, now);
            let as_it_is = Standstill::Blocked(blocked.clone());
            look.take(ThreadId::System(tid), as_it_is, now, stack);
        }
    }

    fn look_at_goroutines(&mut self, program: &GoProgram, look: &mut Look<'_>) {
        let Some(goroutines) = program.goroutines(MAX_GOROUTINES) else { return };
        look.seen.is_cut = goroutines.are_cut;
        if !goroutines.are_cut {
            let live: HashSet<u64> = goroutines.all.iter().map(|one| one.id).collect();
            let has_ended =
                |id: &&ThreadId| matches!(id, ThreadId::Goroutine(id) if !live.contains(id));
            look.seen.ended = look.wanted.these.iter().filter(has_ended).copied().collect();
        }
        for goroutine in &goroutines.all {
            let id = ThreadId::Goroutine(goroutine.id);
            let is_parked =
                matches!(goroutine.state, GoroutineState::Waiting | GoroutineState::Syscall);
            if !is_parked || !(look.wanted.all || look.wanted.these.contains(&id)) {
                continue;
            }
            if !(look.may_go_on)() {
                look.seen.is_cut = true;
                break;
            }
            let Some(raw) = program.stack(goroutine) else { continue };
            let mut hasher = DefaultHasher::new();
            (raw.ip, raw.sp, &raw.bytes).hash(&mut hasher);
            let as_it_is = Standstill::Parked(hasher.finish());
            let now = look.now;
            let since = goroutine.waiting_since.filter(|since| *since <= now).unwrap_or(now);
            look.take(id, as_it_is, since, || self.resolve(&raw, now).stack);
        }
    }

    /// The stack of a thread that is blocked like this, all the while.
    fn stack_of(
        &mut self,
        process: ProcessKey,
        image: u64,
        tid: u32,
        blocked: &Blocked,
        now: Timestamp,
    ) -> Option<Arc<Stack>> {
        let program = self.processes.get_mut(&process).and_then(Programs::latest_mut)?;
        let (runtimes, parts) = program.parts(now);
        let mut raw = copy(tid, image, blocked, &parts)?;
        runtimes.note_calls(&mut raw, &parts);
        if Blocked::read(process.pid, tid).as_ref() != Some(blocked) {
            return None;
        }
        self.resolve(&raw, now).stack
    }
}

impl Look<'_> {
    /// Takes in a thread that does not run, since this moment at the latest; `stack` gives its
    /// stack, where it is not known.
    fn take(
        &mut self,
        id: ThreadId,
        as_it_is: Standstill,
        since: Timestamp,
        stack: impl FnOnce() -> Option<Arc<Stack>>,
    ) {
        let known = self.former.still(id, &as_it_is);
        let new = || Some(Seen { as_it_was: as_it_is, stack: stack()?, since });
        if let Some(seen) = known.or_else(new) {
            let (stack, since) = (Arc::clone(&seen.stack), seen.since);
            self.seen.blocked.push(BlockedThread { id, stack, since });
            self.latest.keep(id, seen);
        }
    }
}

fn system_thread(id: &ThreadId) -> Option<u32> {
    match id {
        ThreadId::System(tid) => Some(*tid),
        ThreadId::Goroutine(_) => None,
    }
}

/// A copy of a blocked thread's stack.
fn copy(tid: u32, image: u64, blocked: &Blocked, process: &Process<'_>) -> Option<RawStack> {
    let memory: &dyn Target = process.memory()?;
    let bytes = memory.bytes_up_to(blocked.sp, usize::try_from(MAX_COPY).ok()?)?;
    (!bytes.is_empty()).then(|| RawStack {
        process: process.key,
        tid,
        image,
        ip: blocked.ip,
        sp: blocked.sp,
        bp: 0,
        preserved: [0; PRESERVED_REGISTERS],
        registers_known: false,
        entry: None,
        wanted: MAX_COPY,
        wanted_most: true,
        goroutine_window: Vec::new(),
        interpreter_frames: Vec::new(),
        interpreter_whole: false,
        interpreter_tag: 0,
        bytes,
    })
}
