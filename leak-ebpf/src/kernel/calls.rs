//! Calls of `tcp_sendmsg` and `tcp_recvmsg` that kprobes saw begin, by thread.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use leak_common::event::counter;

use crate::maps::{CALLS, Call, Direction, count};

/// Records that this thread begins a call.
#[inline(always)]
pub(crate) fn begin(call: &Call) {
    // The entry of a sending call is removed when it returns. If one is left, the kernel skipped
    // that return: it follows only a few calls of a function at once.
    if latest().is_some_and(|former| former.direction == Direction::Send) {
        count(counter::UNSEEN_CALLS);
    }
    if CALLS.insert(bpf_get_current_pid_tgid(), call, 0).is_err() {
        count(counter::UNSEEN_CALLS);
    }
}

/// This thread's latest call.
#[inline(always)]
pub(crate) fn latest() -> Option<&'static mut Call> {
    let call = CALLS.get_ptr_mut(bpf_get_current_pid_tgid())?;
    // SAFETY: the value lives as long as the map, and only its own thread uses it.
    Some(unsafe { &mut *call })
}

/// Removes this thread's call.
#[inline(always)]
pub(crate) fn end() {
    let _ = CALLS.remove(bpf_get_current_pid_tgid());
}
