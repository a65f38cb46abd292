//! Where the threads of a process are blocked now, seen from outside: none is stopped.

use std::sync::Arc;

use crate::languages::language::Process;
use crate::languages::target::Target;
use crate::process::ProcessKey;
use crate::process::blocked::{Blocked, has_thread, threads_of};
use crate::process::stat::Stat;
use crate::raw::{PRESERVED_REGISTERS, RawStack};
use crate::resolver::Resolver;
use crate::resolver::programs::Programs;
use crate::resolver::seen::{BlockedThread, Seen, SeenThreads, ThreadsSeen, WantedThreads};
use crate::stack::Stack;
use crate::time::Timestamp;

/// Most threads of one process that are looked at.
pub(crate) const MAX_THREADS: usize = 4096;
/// Most bytes of a stack that are copied.
const MAX_COPY: u32 = 32 << 10;

impl Resolver {
    /// Looks at threads of a process, without stopping them, and resolves the stacks of those that
    /// are blocked in a system call. Stacks of threads that have not run since the look before are
    /// known. `may_go_on` is asked before each thread.
    ///
    /// A blocked thread's stack does not change, so a copy of it counts only if the thread has not
    /// run meanwhile.
    pub fn threads(
        &mut self,
        process: ProcessKey,
        wanted: &WantedThreads,
        now: Timestamp,
        mut may_go_on: impl FnMut() -> bool,
    ) -> ThreadsSeen {
        let mut seen = ThreadsSeen::default();
        let is_it = |stat: &Stat| stat.start_ticks == process.start_ticks && !stat.has_exited;
        let Some(stat) = Stat::read(process.pid).ok().filter(is_it) else { return seen };
        if self.first_sight(process, now).is_err() {
            return seen;
        }
        let (tids, is_cut) = match wanted {
            WantedThreads::All => threads_of(process.pid, MAX_THREADS),
            WantedThreads::These(tids) => (tids.clone(), false),
        };
        seen.is_cut = is_cut;
        let mut former = self.take_seen(process, stat.image);
        let mut latest = SeenThreads::default();
        for tid in tids {
            if !may_go_on() {
                seen.is_cut = true;
                break;
            }
            let Some(blocked) = Blocked::read(process.pid, tid) else {
                let is_wanted = matches!(wanted, WantedThreads::These(_));
                if is_wanted && !has_thread(process.pid, tid) {
                    seen.ended.push(tid);
                }
                continue;
            };
            let known = former.0.remove(&tid).filter(|known| known.blocked == blocked);
            let looked_at = known.or_else(|| {
                let stack = self.stack_of(process, stat.image, tid, &blocked, now)?;
                Some(Seen { blocked, stack, since: now })
            });
            if let Some(one) = looked_at {
                let stack = Arc::clone(&one.stack);
                seen.blocked.push(BlockedThread { tid, stack, since: one.since });
                latest.0.insert(tid, one);
            }
        }
        if *wanted != WantedThreads::All {
            // The others were not looked at.
            former.0.extend(latest.0);
            latest = former;
        }
        if let Some(program) = self.processes.get_mut(&process).and_then(Programs::latest_mut) {
            program.threads = latest;
        }
        // What was read may be another process's, if this one has ended.
        let is_same = |now: &Stat| is_it(now) && now.image == stat.image;
        match Stat::read(process.pid).ok().filter(is_same) {
            Some(_) => seen,
            None => ThreadsSeen::default(),
        }
    }

    fn take_seen(&mut self, process: ProcessKey, image: u64) -> SeenThreads {
        let latest = self.processes.get_mut(&process).and_then(Programs::latest_mut);
        let program = latest.filter(|program| program.is_of(image));
        program.map(|program| std::mem::take(&mut program.threads)).unwrap_or_default()
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
