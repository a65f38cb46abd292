//! Which processes are traced, when only some are: their children join them.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use crate::kernel::{is_listed, process_of};
use crate::maps::{PIDS, constant};

/// `void (struct task_struct *parent, struct task_struct *child)`
#[btf_tracepoint(function = "sched_process_fork")]
pub(crate) fn fork(ctx: BtfTracePointContext) -> i32 {
    if constant!(CONFIG.follow_children) == 0 {
        return 0;
    }
    // SAFETY: both arguments are tasks.
    let (parent, child) = unsafe { (process_of(ctx.arg(0)), process_of(ctx.arg(1))) };
    if parent != child && is_listed(parent) {
        let _ = PIDS.insert(child, 1, 0);
    }
    0
}
