//! Keeps the list of traced processes, when only some are: their children join it until they exit.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use crate::kernel::task::{Task, is_listed};
use crate::maps::PIDS;

/// The value of a process that a traced one forked.
const CHILD: u32 = 2;

/// `void (struct task_struct *parent, struct task_struct *child)`
#[btf_tracepoint(function = "sched_process_fork")]
pub(crate) fn fork(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: both arguments are tasks.
    let (parent, child) = unsafe { (Task::from_btf(ctx.arg(0)), Task::from_btf(ctx.arg(1))) };
    let (parent, child) = (parent.process(), child.process());
    if parent != child && is_listed(parent) {
        let _ = PIDS.insert(child, CHILD, 0);
    }
    0
}

/// `void (struct task_struct *task)`. Later kernels add an argument.
#[btf_tracepoint(function = "sched_process_exit")]
pub(crate) fn exit(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the argument is a task.
    let task = unsafe { Task::from_btf(ctx.arg(0)) };
    let process = task.process();
    if let Some(kind) = PIDS.get_ptr(process) {
        // SAFETY: the value is copied at once.
        let is_child = unsafe { *kind } == CHILD;
        if is_child && task.is_leader() {
            let _ = PIDS.remove(process);
        }
    }
    0
}
